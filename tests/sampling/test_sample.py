"""A sample saved to files and shown in a notebook: the pixels, settings and texts that come back."""

import io
import json
import re
from base64 import b64decode
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from osjax.data.video import decode
from osjax.errors import UserError
from osjax.sampling.sample import Sample

PROMPTS = ["a red circle", '<script>alert("x")</script> & co']


def sample(count=2, frames=3):
    """Videos of one grey level each, brighter from frame to frame."""
    levels = 40 + 100 * np.arange(count)[:, None] + 10 * np.arange(frames)
    videos = np.broadcast_to(levels[:, :, None, None, None], (count, frames, 16, 32, 3)).astype(np.uint8)
    rows = [{"prompt": PROMPTS[i % 2], "text": "t", "negative": "", "seed": 7 + i} for i in range(count)]
    return Sample(videos, np.zeros((count, 1, 2, 2, 4), np.float32), {"steps": 3, "fps": 8}, rows)


def same_pixels(path, video):
    got = np.asarray(Image.open(path))[None] if path.suffix == ".png" else decode(path)
    return got.shape == video.shape and np.abs(got.astype(int) - video).max() <= 2


def test_videos_are_saved_to_a_folder_with_their_settings_beside_them(tmp_path):
    made = sample()
    paths = made.save(tmp_path / "deep" / "out")
    assert [p.name for p in paths] == ["0000-a-red-circle.mp4", "0001-script-alert-x-script-co.mp4"]
    assert all(map(same_pixels, paths, made.videos_BTHWC)) and not same_pixels(paths[0], made.videos_BTHWC[1])
    told = [json.loads(p.with_suffix(".json").read_text()) for p in paths]
    assert told == [{**made.settings, **row} for row in made.rows] and told[0] != told[1]
    assert len(list(paths[0].parent.iterdir())) == 4  # nothing unfinished is left


def test_one_video_is_saved_to_the_file_that_is_named(tmp_path):
    made = sample(1)
    assert made.save(str(tmp_path / "clip.mp4")) == [tmp_path / "clip.mp4"]
    assert same_pixels(tmp_path / "clip.mp4", made.videos_BTHWC[0])
    assert json.loads((tmp_path / "clip.json").read_text())["seed"] == 7
    assert made.save(tmp_path / "v1.5") == [tmp_path / "v1.5" / "0000-a-red-circle.mp4"]


def test_one_frame_is_saved_as_a_png_pixel_for_pixel(tmp_path):
    image = sample(1, frames=1)
    image.videos_BTHWC.setflags(write=True)
    image.videos_BTHWC[0, 0, 3, 4] = (255, 0, 9)
    for path in (tmp_path / "still.png", tmp_path / "folder"):
        (saved,) = image.save(path)
        assert saved.suffix == ".png" and np.array_equal(np.asarray(Image.open(saved)), image.videos_BTHWC[0, 0])


def test_a_saved_sample_replaces_an_older_one(tmp_path):
    sample(1).save(tmp_path / "clip.mp4")
    newer = sample(2)
    newer = Sample(newer.videos_BTHWC[1:], newer.latents_BTHWC[1:], newer.settings, newer.rows[1:])
    newer.save(tmp_path / "clip.mp4")
    assert same_pixels(tmp_path / "clip.mp4", newer.videos_BTHWC[0])


@pytest.mark.parametrize(
    "made, place, says",
    [
        (sample(2), "clip.mp4", "is one file, but there are 2 videos: give a folder"),
        (sample(1), "still.png", "a PNG holds one frame, the video has 3: write it as .mp4"),
        (sample(1), "file/clip.mp4", "cannot be written"),
        (sample(2), "file", "cannot be written"),
        (sample(1), "folder.mp4", "cannot be written .Is a directory.: give another path"),
    ],
)
def test_a_path_that_cannot_be_written_is_refused_in_one_line(tmp_path, made, place, says):
    (tmp_path / "file").write_text("here already")
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(UserError, match=says) as refused:
        made.save(tmp_path / place)
    assert "\n" not in str(refused.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.mp4"]


class Page(HTMLParser):
    """Tags in order, the data of media, and the texts as a browser would show them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.media, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag in ("video", "img"):
            self.media.append(b64decode(re.fullmatch("data:.*;base64,(.*)", dict(attributes)["src"])[1]))

    def handle_data(self, text):
        self.texts.append(text)


def test_a_notebook_shows_the_videos_inline_and_prompts_as_plain_text():
    made = sample()
    page = Page(made._repr_html_())
    assert page.tags == ["figure", "video", "figcaption"] * 2  # the tags of a prompt are none of the page
    assert page.texts == [f"{prompt} (seed {7 + i})" for i, prompt in enumerate(PROMPTS)]
    for data, video in zip(page.media, made.videos_BTHWC, strict=True):
        assert np.abs(decode(data).astype(int) - video).max() <= 2
    still = sample(1, frames=1)
    page = Page(still._repr_html_())
    assert page.tags == ["figure", "img", "figcaption"]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(page.media[0]))), still.videos_BTHWC[0, 0])
