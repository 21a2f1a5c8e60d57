"""Cutting: shots, lengths, borders, sizes, rates and turns, on videos whose cuts are known."""

import dataclasses

import av
import numpy as np
import pytest

from osjax.curation import borders, cut, encode
from osjax.data import video
from osjax.errors import UserError
from tests.curation.conftest import picture, turned, write, write_raw


def run(path, folder, **changes):
    folder.mkdir(exist_ok=True)
    options = dataclasses.replace(cut.Cutting(preset="ultrafast"), **changes)
    return cut.cut({"path": str(path), "text": "words"}, options, str(folder))


@pytest.fixture(scope="module")
def shots(tmp_path_factory):
    """Three shots of 60, 24 and 250 frames at 24 per second."""
    parts = [picture(T, 64, 96, seed) for seed, T in enumerate((60, 24, 250))]
    return write(tmp_path_factory.mktemp("shots") / "shots.mp4", np.concatenate(parts))


def test_shots_are_cut_split_and_dropped_with_reasons(shots, tmp_path):
    rows = run(shots, tmp_path / "clips")
    kept = [row for row in rows if not row.get("reason")]
    assert [(row["start"], row["duration"], row["num_frames"]) for row in kept] == [
        (0.0, pytest.approx(2.5), 60),
        (pytest.approx(3.5), pytest.approx(8.0), 192),
        (pytest.approx(11.5), pytest.approx(58 / 24), 58),
    ]
    (dropped,) = [row for row in rows if row.get("reason")]
    assert dropped["reason"] == "shot from 2.50 s is 1.00 s long, needs 2" and dropped["path"] == str(shots)
    assert sorted(p.name for p in (tmp_path / "clips").iterdir()) == sorted(row["path"].split("/")[-1] for row in kept)
    for row in kept:
        frames = video.decode(row["path"])
        assert frames.shape == (row["num_frames"], 64, 96, 3) and row["source"] == str(shots) and row["text"] == "words"


def test_a_higher_threshold_sees_no_cut(shots, tmp_path):
    rows = run(shots, tmp_path / "clips", scene=100.0)
    assert [row["num_frames"] for row in rows] == [192, 142]


def test_a_clip_shows_the_frames_of_its_shot(shots, tmp_path):
    first, _, third, _ = run(shots, tmp_path / "clips", crf=1)
    source = video.decode(shots).astype(int)
    assert abs(video.decode(first["path"]) - source[:60]).mean() < 4
    assert abs(video.decode(third["path"]) - source[84:276]).mean() < 4
    assert abs(video.decode(third["path"]) - source[85:277]).mean() > 6  # one frame off is seen


def test_a_second_run_writes_the_same_files(shots, tmp_path):
    before = {row["path"]: row for row in run(shots, tmp_path / "clips")}
    content = {p.name: p.read_bytes() for p in (tmp_path / "clips").iterdir()}
    assert {row["path"]: row for row in run(shots, tmp_path / "clips")} == before
    assert {p.name: p.read_bytes() for p in (tmp_path / "clips").iterdir()} == content


def test_black_borders_are_cropped_and_dark_pictures_are_not(tmp_path):
    letterbox = np.pad(picture(60, 64, 96), ((0, 0), (24, 16), (8, 0), (0, 0)))
    (row,) = run(write(tmp_path / "letterbox.mp4", letterbox), tmp_path / "clips")
    assert (row["height"], row["width"]) == (64, 96)
    assert video.decode(row["path"])[:, 0].mean() > 40
    (row,) = run(tmp_path / "letterbox.mp4", tmp_path / "clips", borders=False)
    assert (row["height"], row["width"]) == (104, 104)
    night = np.full((60, 64, 96, 3), 2, np.uint8)
    night[:, 30:34, 40:44] = 255
    (row,) = run(write(tmp_path / "night.mp4", night), tmp_path / "clips")
    assert (row["height"], row["width"]) == (64, 96)


def test_a_box_needs_lines_that_are_bright_on_the_whole():
    luma = np.full((40, 60), 5, np.uint8)
    luma[10:30, :] = 120
    luma[2, 5] = 255  # a speck in the border
    assert borders.box(luma) == borders.Box(10, 0, 20, 60)
    assert borders.box(np.full((40, 60), 120, np.uint8)) is None and borders.box(np.zeros((40, 60), np.uint8)) is None


@pytest.mark.parametrize("fps, written", [(24, 24), (30, 24), (60, 24), (25, 25), (16, 16)])
def test_fast_videos_are_slowed_in_frames_not_in_time(tmp_path, fps, written):
    (row,) = run(write(tmp_path / "video.mp4", picture(3 * fps, 32, 48), fps=fps), tmp_path / "clips")
    with av.open(row["path"]) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == written and stream.frames == row["num_frames"] == 3 * written
        assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
    assert row["fps"] == written and row["duration"] == pytest.approx(3.0)


def test_the_long_side_is_limited_and_even():
    assert encode.size(2160, 3840, 1080) == (606, 1080)
    assert encode.size(720, 1280, 1080) == (606, 1080)
    assert encode.size(65, 97, 1080) == (64, 96)
    with pytest.raises(UserError, match="too small"):
        encode.size(8, 800, 1080)


def test_turned_videos_come_out_upright(tmp_path):
    plain = write(tmp_path / "plain.mp4", picture(60, 64, 96, speed=0), crf=4)
    (row,) = run(turned(tmp_path / "turned.mp4", plain), tmp_path / "clips", crf=4)
    upright = np.rot90(picture(1, 64, 96, speed=0)[0], -1).astype(int)
    frame = video.decode(row["path"], 1)[0]
    assert frame.shape == upright.shape == (96, 64, 3)
    assert abs(frame - upright).mean() < 8 < abs(frame - upright[::-1, ::-1]).mean()


def test_variable_rates_keep_the_time(tmp_path):
    gaps = [20] * 60 + [80] * 30
    path = write_raw(tmp_path / "vfr.mp4", picture(90, 64, 96), pts=np.cumsum(gaps).tolist())
    (row,) = run(path, tmp_path / "clips")
    assert row["duration"] == pytest.approx(sum(gaps) / 1000, abs=0.1)
    assert row["num_frames"] == pytest.approx(row["duration"] * row["fps"], abs=2)


@pytest.mark.parametrize("name", ["ten_bit", "odd", "variable_rate", "rotated"])
def test_unusual_files_become_usual_ones(zoo, tmp_path, name):
    rows = run(zoo[name], tmp_path / "clips", min_seconds=1.0)
    for row in rows:
        frames = video.decode(row["path"])
        assert frames.shape[0] == row["num_frames"] and not frames.shape[1] % 2 and not frames.shape[2] % 2


def test_files_that_break_leave_nothing_behind(zoo, tmp_path):
    for name in ("cut_50", "front_cut_70", "audio", "empty", "tiny", "no_frames"):
        with pytest.raises(UserError):
            run(zoo[name], tmp_path / "clips")
    assert list((tmp_path / "clips").iterdir()) == []


def test_key_frames_come_as_often_as_asked(shots, tmp_path):
    def keys(**changes):
        row = run(shots, tmp_path / "clips", **changes)[2]
        with av.open(row["path"]) as container:
            packets = [p for p in container.demux(container.streams.video[0]) if p.size]
            return row["num_frames"], [n for n, p in enumerate(packets) if p.is_keyframe]

    assert keys() == (192, [0, 48, 96, 144]) and keys(key_seconds=4.0) == (192, [0, 96])
