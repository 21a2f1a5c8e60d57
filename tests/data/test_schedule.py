"""The bucket of a step is a pure function of seed and step, and a pass uses each sample at most once."""

import pytest

from osjax.data import schedule
from osjax.data.buckets import Bucket
from osjax.errors import UserError

IMAGES, SHORT, LONG = Bucket("256px", 1, "1:1"), Bucket("256px", 5, "1:1"), Bucket("256px", 33, "16:9")
MEMBERS = {SHORT: list(range(0, 11)), LONG: list(range(11, 20)), IMAGES: list(range(20, 45))}
SIZES = {SHORT: 2, LONG: 3, IMAGES: 4}
STEPS = 5 + 3 + 6  # whole batches of a pass


def test_a_pass_visits_each_bucket_as_often_as_it_fills_batches():
    plan = schedule.plan(MEMBERS, SIZES, seed=0)
    visited = [plan.bucket(step) for step in range(STEPS)]
    assert {b: visited.count(b) for b in MEMBERS} == {SHORT: 5, LONG: 3, IMAGES: 6}
    assert visited != [plan.bucket(step) for step in range(STEPS, 2 * STEPS)]


def test_the_bucket_of_a_step_depends_on_seed_and_step_alone():
    one = schedule.plan(MEMBERS, SIZES, seed=3)
    other = schedule.plan(dict(reversed(MEMBERS.items())), SIZES, seed=3)  # another host may list them otherwise
    assert [one.bucket(s) for s in (40, 7, 0)] == [other.bucket(s) for s in (40, 7, 0)]
    assert [one.indices(s) for s in range(30)] == [other.indices(s) for s in range(30)]
    foreign = schedule.plan(MEMBERS, SIZES, seed=4)
    assert [one.indices(s) for s in range(30)] != [foreign.indices(s) for s in range(30)]


def test_a_batch_holds_its_buckets_samples_and_none_comes_twice_in_a_pass():
    plan = schedule.plan(MEMBERS, SIZES, seed=1)
    for turn in range(3):
        used = []
        for step in range(turn * STEPS, (turn + 1) * STEPS):
            batch, bucket = plan.indices(step), plan.bucket(step)
            assert len(batch) == SIZES[bucket] and set(batch) <= set(MEMBERS[bucket])
            used += batch
        assert len(used) == len(set(used))


def test_data_that_fill_no_batch_are_refused_with_the_counts():
    with pytest.raises(UserError, match="256px x 5: 1 of 2"):
        schedule.plan({SHORT: [0]}, SIZES, seed=0)
    with pytest.raises(UserError, match="no sample fits"):
        schedule.plan({}, {}, seed=0)
