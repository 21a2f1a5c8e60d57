"""Probing: good clips are measured, broken ones are dropped with a reason and named in the log."""

import logging
import os

import pytest

from osjax.curation import probe
from osjax.data import clips, table
from osjax.errors import UserError


@pytest.fixture
def folder(tmp_path):
    clips.write_clips(tmp_path, clips.specs(4, 0, clips.combinations()), 32, 8, 8)
    return tmp_path


def test_good_clips_are_kept_with_what_was_measured(folder):
    rows = table.read(folder / "clips.csv")
    assert probe.probe(folder / "clips.csv") == probe.Probed(kept=rows, dropped=[])


def test_broken_clips_among_good_ones_are_dropped_counted_and_named(folder, caplog):
    (folder / "00001.mp4").write_bytes(b"not a video, whatever its name says")
    (folder / "00002.mp4").write_bytes(b"")
    rows = table.read(folder / "clips.csv")
    table.write_csv(folder / "all.csv", [*rows, {**rows[0], "path": "gone.mp4"}, {**rows[0], "text": " "}])
    with caplog.at_level(logging.WARNING):
        found = probe.probe(folder / "all.csv")
    assert [row["path"] for row in found.kept] == [rows[0]["path"], rows[3]["path"]]
    reasons = [row["reason"] for row in found.dropped]
    for reason, words in zip(reasons, ("cannot be decoded", "is empty", "does not exist", "no caption"), strict=True):
        assert words in reason
    assert "4 of 6 clips dropped" in caplog.text
    assert all(name in caplog.text for name in ("00001.mp4", "00002.mp4", "gone.mp4"))


def test_clips_that_are_too_short_are_dropped(folder):
    assert len(probe.probe(folder / "clips.csv", min_frames=8).kept) == 4
    found = probe.probe(folder / "clips.csv", min_frames=9)
    assert not found.kept and all("has 8 frames, needs 9" in row["reason"] for row in found.dropped)


def test_a_folder_takes_captions_from_text_files(folder):
    (folder / "00000.txt").write_text("a red thing\n")
    found = probe.probe(folder)
    assert [row["text"] for row in found.kept] == ["a red thing"] and len(found.dropped) == 3


def test_a_folder_without_videos_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="holds no video"):
        probe.probe(tmp_path)


def test_a_file_that_is_larger_than_a_record_is_dropped_before_it_is_read(folder, tmp_path_factory):
    given = tmp_path_factory.mktemp("given")
    video = next(folder.glob("*.mp4"))
    for name, size in (("large", probe.LARGEST + 1), ("small", video.stat().st_size)):
        (given / f"{name}.mp4").write_bytes(video.read_bytes())
        os.truncate(given / f"{name}.mp4", size)
        (given / f"{name}.txt").write_text("a clip")
    probed = probe.probe(given)
    assert [row["path"] for row in probed.kept] == [str(given / "small.mp4")]
    assert "2000000001 bytes, 2000000000 at most are one clip" in probed.dropped[0]["reason"]
