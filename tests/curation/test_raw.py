"""The report's rules for raw video, each on a file that breaks it and no other."""

import dataclasses

import pytest

from osjax.curation import raw
from osjax.errors import UserError
from tests.curation.conftest import picture, write, write_raw


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return write(tmp_path_factory.mktemp("raw") / "good.mp4", picture(60, 64, 96))


def reason(path, **changes):
    return raw.reason(raw.inspect(path), dataclasses.replace(raw.Rules(), **changes))


def test_a_good_video_is_measured_and_kept(good):
    found = raw.inspect(good)
    assert (found["num_frames"], found["height"], found["width"], found["fps"]) == (60, 64, 96, 24)
    assert found["duration"] == pytest.approx(2.5) and found["codec"] == "h264" and found["rotation"] == 0
    assert found["bits_per_pixel"] == pytest.approx(
        8 * good.stat().st_size / (60 * 64 * 96), rel=0.4
    )  # the file has more than its pictures
    assert raw.reason(found, raw.Rules()) is None


@pytest.mark.parametrize(
    "rule, says",
    [
        ({"min_seconds": 2.6}, "2.50 s long, needs 2.6"),
        ({"min_fps": 25.0}, "24.00 frames per second, needs 25"),
        ({"max_aspect": 0.6}, "aspect ratio 0.667, outside"),
        ({"min_aspect": 0.7}, "aspect ratio 0.667, outside"),
        ({"min_bits_per_pixel": 50.0}, "bits per pixel, needs 50"),
        ({"drop_profiles": ("High",)}, "profile High"),
    ],
)
def test_each_rule_drops_a_video_that_the_report_s_rules_keep(good, rule, says):
    assert says in reason(good, **rule)


def test_short_slow_narrow_and_baseline_videos_are_dropped(tmp_path):
    short = write(tmp_path / "short.mp4", picture(40, 64, 96))
    slow = write(tmp_path / "slow.mp4", picture(40, 64, 96), fps=12)
    narrow = write(tmp_path / "narrow.mp4", picture(60, 32, 128))
    still = write(tmp_path / "still.mp4", picture(60, 256, 256, speed=0)[:, :1, :1].repeat(256, 1).repeat(256, 2))
    baseline = write_raw(
        tmp_path / "baseline.mp4", picture(60, 64, 96), options={"profile": "baseline", "preset": "veryfast"}
    )
    for path, says in (
        (short, "s long"),
        (slow, "frames per second"),
        (narrow, "aspect"),
        (still, "bits per pixel"),
        (baseline, "profile Constrained Baseline"),
    ):
        assert says in (reason(path) or "kept"), path


@pytest.mark.parametrize("name", ["empty", "text", "header_only", "audio", "cut_50", "front_cut_30", "no_frames"])
def test_broken_files_are_user_errors(zoo, name):
    with pytest.raises(UserError, match=str(zoo[name])):
        raw.inspect(zoo[name])


@pytest.mark.parametrize("name", ["rotated", "ten_bit", "odd", "variable_rate"])
def test_unusual_files_that_play_are_measured(zoo, name):
    found = raw.inspect(zoo[name])
    assert found["num_frames"] == 60 and found["rotation"] == (-90 if name == "rotated" else 0)
