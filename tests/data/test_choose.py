"""Buckets for a few clips: chosen from their lengths and shapes, filled by repeating, and nothing left out unsaid."""

import numpy as np
import pytest

from osjax.data import buckets, choose, index, left_out, schedule
from osjax.data.buckets import Bucket, Rule

FRAMES = range(5, 130, 4)


def entries(*clips):
    """Of clips (frames, height, width, fps)."""
    return np.array(list(clips), index.ENTRY)


def test_lengths_are_those_by_which_clips_lose_the_fewest_frames_and_the_shortest_is_among_them():
    frames = np.array([9] + [60] * 5 + [33] * 10 + [3, 1])
    assert choose.lengths(frames, FRAMES, 1) == (9,)
    assert choose.lengths(frames, FRAMES, 2) == (9, 33)
    assert choose.lengths(frames, FRAMES, 3) == (9, 33, 57)
    assert choose.lengths(frames, FRAMES, 9) == (9, 33, 57)  # no clip would gain from more
    assert choose.lengths(np.array([3, 1]), FRAMES, 2) == ()


def test_aspects_are_those_by_which_clips_are_cropped_the_least():
    clips = entries(*[(33, 256, 455, 24)] * 6, *[(33, 455, 256, 24)] * 3, (33, 300, 300, 24))
    assert choose.aspects(clips, "256px", 16, 1) == ("16:9",)
    assert choose.aspects(clips, "256px", 16, 2) == ("16:9", "9:16")
    assert set(choose.aspects(clips, "256px", 16, 5)) == {"16:9", "9:16", "1:1"}


def test_clips_go_to_the_nearest_of_the_aspects_that_are_left():
    rules = {"256px": {5: Rule(1.0, 1)}}
    some = buckets.Buckets(rules, aspects=("16:9", "1:1"))
    assert some.find(9, 300, 360, 24, 0).aspect == "1:1" and some.count == 2
    assert buckets.Buckets(rules).find(9, 300, 390, 24, 0).aspect == "4:3"


def test_frames_are_counted_after_whole_factors_are_left_out():
    clips = entries((120, 256, 256, 60), (120, 256, 256, 24), (1, 256, 256, np.nan))
    assert choose.frames_left(clips, 24.0).tolist() == [40, 120, 1]


@pytest.mark.parametrize(("clips", "size"), [(20, 8), (3, 8), (8, 8)])
def test_a_filled_plan_shows_every_clip_and_repeats_no_more_than_its_batches_need(clips, size):
    bucket = Bucket("256px", 5, "1:1")
    plan = schedule.Plan(lambda turn: {bucket: range(clips)}, {bucket: size}, 3, settled=True, fill=True)
    steps = plan.pass_of(0).batches
    shown = [i for step in range(steps) for i in plan.indices(step)]
    assert steps == -(-clips // size) and set(shown) == set(range(clips)) and len(shown) == steps * size
    counts = np.bincount(shown)
    assert counts.max() - counts.min() <= 1
    if clips >= size:
        left = schedule.Plan(lambda turn: {bucket: range(clips)}, {bucket: size}, 3, settled=True)
        assert left.pass_of(0).batches == clips // size


def test_every_clip_that_is_left_out_has_a_reason_and_the_key_that_lets_it_in():
    table = buckets.Buckets({"256px": {9: Rule(1.0, 4)}, "512px": {17: Rule(1.0, 2)}})
    clips = entries(
        *[(9, 256, 256, 24)] * 4, (9, 300, 300, 24), (9, 256, 455, 24), (9, 64, 64, 24), (5, 256, 256, 24),
        (17, 256, 256, 48), (1, 256, 256, np.nan), (17, 512, 512, 24),
    )  # fmt: skip
    grouped = index.group(clips, table, 0)
    plan = schedule.Plan(grouped.members, {b: table.batch_size(b) for b in grouped.possible}, 0, settled=True)
    out = left_out.reasons(clips, table, plan.pass_of(0), plan.batch_sizes)
    told = {tuple(int(x) for x in places): reason for reason, places in out.items()}
    assert told[(5,)] == "fill no batch of 4 of 256px, 9 frames, 16:9: data.fill repeats clips"
    assert told[(10,)].startswith("fill no batch of 2 of 512px")
    assert "fewer than 80% of the pixels of 256px: a smaller resolution" in told[(6,)]
    assert "shorter than the 9 frames of the shortest bucket at 24 frames per second" in told[(7, 8)]
    assert "are images, and no bucket is of 1 frame" in told[(9,)]
    filled = schedule.Plan(grouped.members, plan.batch_sizes, 0, settled=True, fill=True)
    assert not any(
        "fill no batch" in reason for reason in left_out.reasons(clips, table, filled.pass_of(0), plan.batch_sizes)
    )
