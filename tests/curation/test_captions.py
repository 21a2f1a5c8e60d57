"""Captions as other tools leave them beside clips, and what becomes of clips without."""

import json

import numpy as np
import pytest
from PIL import Image

from osjax.curation import captions, folder
from osjax.curation.captions import Words
from osjax.data import clips, dataset, table, video
from osjax.errors import UserError
from tests import tiny_release


def files(folder, *names):
    """Empty files below a folder."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def texts(folder):
    """Captions by the names of their clips."""
    return {row["path"].removeprefix(f"{folder}/"): row["text"] for row in captions.of_folder(folder).rows}


def test_a_txt_or_a_json_beside_each_clip_or_picture_is_its_caption(tmp_path):
    files(tmp_path, "a.mp4", "b.m4v", "c.mpg", "d.ts", "e.gif", "sub/f.jpg", "g.png")
    for name, text in (("a.txt", "one"), ("sub/f.txt", " six\n")):
        (tmp_path / name).write_text(text)
    for name, key in (("b", "caption"), ("c", "prompt"), ("d", "text")):
        (tmp_path / f"{name}.json").write_text(json.dumps({key: f"of {key}"}))
    assert texts(tmp_path) == {
        "a.mp4": "one", "b.m4v": "of caption", "c.mpg": "of prompt", "d.ts": "of text", "e.gif": "", "g.png": "",
        "sub/f.jpg": "six",
    }  # fmt: skip


def test_one_list_has_the_captions_of_all(tmp_path):
    files(tmp_path, "a.mp4", "b.mp4")
    rows = [{"file_name": "a.mp4", "text": "one"}, {"file_name": "b.mp4", "text": "two"}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    assert texts(tmp_path) == {"a.mp4": "one", "b.mp4": "two"}
    other = files(tmp_path / "other", "videos/a.mp4", "videos/b.mp4")
    (other / "videos.txt").write_text("videos/b.mp4\nvideos/a.mp4\n")
    (other / "captions.txt").write_text("two\none\n")
    assert texts(other) == {"videos/a.mp4": "one", "videos/b.mp4": "two"}
    (other / "captions.txt").write_text("two\n")
    with pytest.raises(UserError, match="has 1 lines and .*videos.txt 2"):
        captions.of_folder(other)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("metadata.jsonl", "{", "line 1 is not a JSON object"),
        ("metadata.jsonl", "[1]", "line 1 is not a JSON object"),
        ("metadata.jsonl", '{"file_name": "a.mp4", "captoin": "x"}', "did you mean caption by captoin"),
    ],
)
def test_a_damaged_list_is_refused_with_its_line(name, content, says, tmp_path):
    files(tmp_path, "a.mp4")
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=says):
        captions.of_folder(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.json", b"{", "is not a JSON object"),
        ("a.json", b'{"title": "x"}', "is under none, or several, of text, caption, prompt"),
        ("a.txt", b"caf\xe9", "is neither UTF-8 nor UTF-16"),
    ],
)
def test_a_caption_that_cannot_be_read_is_told_and_its_clip_left_out(name, content, says, tmp_path):
    (tmp_path / name).write_bytes(content)
    (row,) = captions.of_folder(files(tmp_path, "a.mp4")).rows
    assert row["text"] == "" and says in row["text_reason"]


@pytest.mark.parametrize("name", ["a.mp4", "a.txt", "a.json"])
def test_links_that_lead_out_of_the_folder_are_not_followed(name, tmp_path):
    inside = files(tmp_path / "clips", "a.mp4")
    (tmp_path / "secret").write_text('{"text": "secret"}')
    (inside / name).unlink(missing_ok=True)
    (inside / name).symlink_to(tmp_path / "secret")
    (row,) = captions.of_folder(inside).rows
    assert row["text"] == "" and "lies outside of" in row["text_reason"]


def test_words_of_all_captions_are_put_around_their_own():
    words = Words("a toy", "A clip. ", "sks")
    assert words.of("a red car") == "A clip. sks, a red car" and words.of("SKS car") == "A clip. SKS car"
    assert words.of("") == "A clip. sks, a toy" and Words(trigger="sks").of("") == ""


def test_a_folder_becomes_a_data_set_and_what_does_not_train_is_told(tmp_path):
    source = tiny_release.write_clips(tmp_path / "clips", 3)
    for name, content in (("003.mp4", b"no video"), ("notes.pdf", b"%PDF"), ("lost.txt", b"of no clip")):
        (source / name).write_bytes(content)
    (source / "003.txt").write_text("noise")
    video.write_mp4(source / "004.mp4", clips.render(clips.specs(1, 1, clips.combinations())[0], 32, 8), 8)
    Image.fromarray(np.zeros((40, 48, 3), np.uint8)).save(source / "still.png")
    (source / "still.txt").write_text("black")
    built = folder.build(source, tmp_path / "out", Words(trigger="sks"))
    assert built.kept == 4 and len(built.dropped) == 2
    told = "\n".join(built.dropped)
    assert (
        "003.mp4 cannot be decoded" in told
        and "004.mp4: it has no caption: write one beside it, or give --caption" in told
    )
    assert [name.rsplit("/", 1)[1] for name in built.others] == ["lost.txt", "notes.pdf"]
    records = dataset.open_source(built.path)
    assert all(record["text"].decode().startswith("sks, ") for record in records)
    assert sorted(int(record["num_frames"]) for record in records) == [1, 8, 8, 8]
    reasons = {row["path"]: row["reason"] for row in table.read(tmp_path / "out" / folder.CLIPS)}
    assert len(reasons) == 6 and sum(map(bool, reasons.values())) == 2


def test_the_same_folder_is_not_worked_on_again_and_a_changed_one_is(tmp_path):
    source = tiny_release.write_clips(tmp_path / "clips", 2)
    first = folder.build(source, tmp_path / "out", Words())
    made = (tmp_path / "out" / folder.CLIPS).stat().st_mtime_ns
    assert folder.build(source, tmp_path / "out", Words()) == first
    assert (tmp_path / "out" / folder.CLIPS).stat().st_mtime_ns == made
    assert folder.build(source, tmp_path / "out", Words(prefix="A clip. ")).kept == 2
    assert (tmp_path / "out" / folder.CLIPS).stat().st_mtime_ns != made
    with pytest.raises(UserError, match="no clip of .* can be trained on"):
        folder.build(files(tmp_path / "empty", "a.mp4"), tmp_path / "out2", Words())
