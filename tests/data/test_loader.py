"""Examples: what is in them, and what replaces clips that do not decode."""

import logging

import numpy as np
import pytest

from osjax.data import clips, frames, transforms, video
from osjax.data.loader import ClipReader, Window
from osjax.errors import UserError

COUNT = 10


@pytest.fixture(scope="module")
def source():
    """Records as a data set gives them."""
    chosen = clips.specs(COUNT, 0, clips.combinations())
    return [_record(i, video.encode(clips.render(s, 32), 8), s.caption) for i, s in enumerate(chosen)]


def _record(index, content, text, num_frames=8, fps=8.0):
    path = f"{index}.mp4".encode()
    return {"video": content, "text": text.encode(), "path": path, "num_frames": num_frames, "fps": fps}


def test_an_example_holds_scaled_pixels_caption_and_index(source):
    example = ClipReader(source, Window(8, 32, 32))(3)
    pixels = example["video"]
    assert pixels.shape == (8, 32, 32, 3) and pixels.dtype == np.uint8
    in_unit = transforms.unit(pixels)
    assert -1 <= in_unit.min() < -0.2 and 0.2 < in_unit.max() <= 1 and in_unit.dtype == np.float32
    assert example["text"] == source[3]["text"].decode() != source[4]["text"].decode() and example["index"] == 3
    np.testing.assert_array_equal(pixels, video.decode(source[3]["video"]))


def test_clips_of_another_size_are_resized_and_cut_in_time(source):
    want = transforms.resize_crop_clip(video.decode(source[2]["video"], 5), 16, 24)
    exact = ClipReader(source, Window(5, 16, 24, exact=True))(2)["video"]
    np.testing.assert_array_equal(exact, want)
    rounded = ClipReader(source, Window(5, 16, 24))(2)["video"]
    assert rounded.dtype == np.uint8 and Window(5, 16, 24).bytes == rounded.nbytes == exact.nbytes // 4
    assert 0 < np.abs(rounded - want).max() <= 1 and np.abs(rounded - want).mean() < 0.3


def test_a_broken_clip_is_replaced_counted_and_named_once(source, caplog):
    broken = list(source)
    broken[3] = {**source[3], "video": b"no video"}
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            reader = ClipReader(broken, Window(8, 32, 32))
            assert [reader(i)["index"] for i in (2, 3, 4, 3)] == [2, 4, 4, 4]
            assert reader.broken == {3: "3.mp4"}
    assert sum("3.mp4" in record.getMessage() for record in caplog.records) == 2  # once for each reader


def test_a_broken_clip_is_replaced_by_one_of_its_bucket_always_the_same(source):
    broken = list(source)
    broken[3] = {**source[3], "video": b"no video"}
    members = (1, 3, 6, 8)
    found = [ClipReader(broken, Window(8, 32, 32))(3, members=members)["index"] for _ in range(3)]
    assert len(set(found)) == 1 and found[0] in (1, 6, 8)


@pytest.fixture(scope="module")
def long_clip():
    """40 frames at 48 per second; a frame's grey says its number."""
    grey = np.repeat(6 * np.arange(40, dtype=np.uint8), 16 * 16 * 3).reshape(40, 16, 16, 3)
    return [_record(0, video.encode(grey, 48, crf=1), "grey", 40, 48.0)]


def _numbers(pixels_THWC):
    return np.round(pixels_THWC.mean((1, 2, 3)) / 6).astype(int).tolist()


def test_a_fast_clip_keeps_every_second_frame_below_the_highest_rate(long_clip):
    read = ClipReader(long_clip, Window(5, 16, 16, fps_max=30))
    assert _numbers(read(0)["video"]) == frames.pick(40, 5, 2).tolist()
    assert _numbers(ClipReader(long_clip, Window(5, 16, 16))(0)["video"]) == [0, 1, 2, 3, 4]


def test_random_starts_vary_with_the_draws_and_repeat_with_them(long_clip):
    read = ClipReader(long_clip, Window(5, 16, 16, random_start=True))

    def starts(seed):
        rng = np.random.default_rng(seed)
        return [_numbers(read(0, rng)["video"])[0] for _ in range(8)]

    assert len(set(starts(0))) > 3 and starts(0) == starts(0) != starts(1)


def test_data_of_broken_clips_alone_stop_with_an_error_that_names_one(source):
    broken = [{**record, "video": b"no video"} for record in source]
    with pytest.raises(UserError, match=r"do not decode.*\.mp4"):
        ClipReader(broken, Window(8, 32, 32))(0)
