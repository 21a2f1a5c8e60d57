"""Batches of changing shape: each step has its bucket's size, on every process, and resumes exactly."""

import json
import time

import numpy as np
import pytest

from osjax.data import bucketed, buckets, loader, schedule, transforms, video
from osjax.errors import UserError
from tests.data import clip_records

COUNT = 12
SHORT, LONG = buckets.Bucket("a", 3, "1:1"), buckets.Bucket("b", 8, "1:1")
SHAPES = {SHORT: (3, 16, 16), LONG: (8, 24, 32)}


@pytest.fixture(scope="module")
def source():
    return clip_records.of_clips(COUNT)


def _plan(seed=0):
    return schedule.plan({SHORT: range(8), LONG: range(8, COUNT)}, {SHORT: 4, LONG: 2}, seed)


def _batches(source, random_start=True, fps_max=None, **kwargs):
    windows = {b: loader.Window(*shape, fps_max=fps_max, random_start=random_start) for b, shape in SHAPES.items()}
    return bucketed.batches(source, _plan(), windows, **kwargs)


def test_every_batch_has_the_shape_and_samples_of_its_step(source):
    plan, iterator = _plan(), _batches(source)
    for step in range(8):
        batch, bucket = next(iterator), plan.bucket(step)
        assert batch["video"].shape == (plan.batch_sizes[bucket], *SHAPES[bucket], 3)
        assert list(batch["index"]) == plan.indices(step)
        assert [str(t) for t in batch["text"]] == [source[i]["text"].decode() for i in batch["index"]]


def test_processes_share_out_every_batch(source):
    whole = _batches(source)
    parts = [_batches(source, process_index=i, process_count=2) for i in range(2)]
    for _ in range(6):
        want, (a, b) = next(whole), [next(part) for part in parts]
        assert a["video"].shape == b["video"].shape
        assert sorted([*a["index"], *b["index"]]) == sorted(want["index"]) and not set(a["index"]) & set(b["index"])
        np.testing.assert_array_equal(a["video"], want["video"][0::2])  # random starts included
        np.testing.assert_array_equal(b["video"], want["video"][1::2])


def test_clips_of_a_short_bucket_start_anywhere_unless_told_otherwise(source):
    free, fixed = _batches(source), _batches(source, random_start=False)
    pairs = [(next(free), next(fixed)) for _ in range(6)]
    assert any(not np.array_equal(a["video"], b["video"]) for a, b in pairs)
    for _, batch in pairs:
        if batch["video"].shape[1] == SHAPES[SHORT][0]:
            first = video.decode(source[batch["index"][0]]["video"], SHAPES[SHORT][0])
            want = transforms.resize_crop_clip(first, *SHAPES[SHORT][1:], exact=False)
            np.testing.assert_array_equal(batch["video"][0], want)


def test_a_rate_cap_leaves_frames_out(source):
    every, fewer = _batches(source, random_start=False), _batches(source, random_start=False, fps_max=4)
    pairs = [(next(every), next(fewer)) for _ in range(6)]
    short = [(a["video"], b["video"]) for a, b in pairs if a["video"].shape[1] == SHAPES[SHORT][0]]
    assert short and all(not np.array_equal(a, b) for a, b in short)


def test_a_saved_place_resumes_exactly(source):
    iterator = _batches(source)
    for _ in range(5):
        next(iterator)
    place = json.loads(json.dumps(iterator.get_state()))
    again, fresh = _batches(source), _batches(source)
    again.set_state(place)
    differs = False
    for _ in range(5):
        want, got, start = next(iterator), next(again), next(fresh)
        np.testing.assert_array_equal(got["video"], want["video"])
        differs |= list(start["index"]) != list(want["index"])
    assert differs


def test_a_batch_that_does_not_divide_over_the_processes_is_refused(source):
    with pytest.raises(UserError, match="batch 4 of a x 3 does not divide over 3 processes"):
        _batches(source, process_count=3)


def test_batches_that_wait_are_bounded_by_their_bytes_but_one_always_may():
    plan = _plan()
    sizes = {SHORT: 1_000_000, LONG: 10_000_000}  # bytes of a row; the largest batch has 20 MB
    assert bucketed.Readers(threads=4, ahead_gb=1).ahead(sizes, plan) == 8  # two of each thread
    assert bucketed.Readers(threads=4, ahead_gb=0.1).ahead(sizes, plan) == 5
    assert bucketed.Readers(threads=4, ahead_gb=0.1).ahead(sizes, plan, process_count=2) == 8
    assert bucketed.Readers(threads=4, ahead_gb=0.001).ahead(sizes, plan) == 1
    assert bucketed.Readers(workers=3, ahead_gb=1).ahead(sizes, plan) == 6


def test_no_more_batches_are_read_ahead_than_may_wait():
    assert [_read_ahead(ahead) for ahead in (1, 3, 6)] == [2, 4, 7]  # the one that is used, and those that wait


def _read_ahead(ahead):
    """Batches that are read when the first is used for a while."""
    read = []
    plan = schedule.plan({SHORT: range(8)}, {SHORT: 4}, 0)
    batches = bucketed.planned(plan, lambda _, i, rng: read.append(i) or {"index": i}, threads=4, ahead=ahead)
    next(batches)
    time.sleep(0.3)
    assert len(read) % 4 == 0
    return len(read) // 4
