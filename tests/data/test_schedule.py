"""The bucket of a step is a pure function of seed and step, and a pass uses each sample at most once."""

from itertools import islice, pairwise

import numpy as np
import pytest

from osjax.data import buckets, index, schedule
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


RULES = {
    "256px": {1: buckets.Rule(1.0, 4), 5: buckets.Rule(1.0, 4), 33: buckets.Rule(0.7, 2, skip=0.4)},
    "768px": {1: buckets.Rule(0.5, 3)},
}
TABLE = buckets.Buckets(RULES)
CLIPS = 240


@pytest.fixture(scope="module")
def entries():
    """Images that are large enough for two resolutions, and clips that are long enough for two lengths."""
    made = np.zeros(CLIPS, index.ENTRY)
    made["num_frames"], made["fps"], made["height"], made["width"] = 40, 24, 300, 300
    made["num_frames"][::3], made["fps"][::3] = 1, np.nan
    made["height"][::3] = made["width"][::3] = 800
    return made


def drawing(entries, seed=0, settled=False):
    grouped = index.group(entries, TABLE, seed)
    sizes = {bucket: TABLE.batch_size(bucket) for bucket in grouped.possible}
    return schedule.Plan(grouped.members, sizes, seed, settled)


def steps_of(plan, turn):
    first = sum(plan.pass_of(n).batches for n in range(turn))
    return range(first, first + plan.pass_of(turn).batches)


def test_samples_that_draw_their_bucket_draw_anew_in_each_pass(entries):
    plan = drawing(entries)
    members = [plan.pass_of(turn).members for turn in range(4)]
    for one, other in pairwise(members):
        assert one.keys() == other.keys()
        assert all(not np.array_equal(one[bucket], other[bucket]) for bucket in one)
    fixed = drawing(entries, settled=True)
    assert all(np.array_equal(fixed.pass_of(3).members[bucket], members[0][bucket]) for bucket in members[0])


def test_each_pass_takes_the_whole_batches_of_what_was_drawn_for_it_and_none_twice(entries):
    plan = drawing(entries)
    for turn in range(4):
        now, used = plan.pass_of(turn), []
        for step in steps_of(plan, turn):
            batch = plan.batch(step)
            assert len(batch.indices) == TABLE.batch_size(batch.bucket)
            assert set(batch.indices) <= set(now.members[batch.bucket].tolist())
            used += batch.indices
        assert len(set(used)) == len(used) == sum(n * TABLE.batch_size(b) for b, n in now.counts.items())
    assert len({plan.pass_of(turn).batches for turn in range(6)}) > 1  # the next pass begins where this one ends


def test_a_step_of_a_late_pass_is_the_same_for_whoever_asks_for_it_first(entries):
    one, other = drawing(entries), drawing(entries)
    steps = [*steps_of(one, 5)][:7]
    assert [one.batch(step).indices for step in steps] == [other.batch(step).indices for step in reversed(steps)][::-1]
    foreign = drawing(entries, seed=1)
    assert [one.batch(step).indices for step in steps] != [foreign.batch(step).indices for step in steps]


def test_later_passes_draw_with_the_odds_of_the_rules(entries):
    grouped = index.group(np.repeat(entries[:2], 4000), TABLE, 3)
    for turn in (0, 1):  # the first as the original draws it, the second from the odds
        shares = {bucket: len(some) / 4000 for bucket, some in grouped.members(turn).items()}
        image, clip = ({**group.odds} for group in grouped.drawing)
        for odds in (image, clip):
            for bucket, share in odds.items():
                if bucket is not None:
                    assert shares[bucket] == pytest.approx(share, abs=0.03)  # 3.8 standard deviations
    assert {TABLE.find(1, 800, 800, float("nan"), seed=n) for n in range(20)} == set(image)


def test_passes_that_never_fill_a_batch_end_in_an_error():
    with pytest.raises(UserError, match="no bucket fills a batch"):
        schedule.Plan(lambda turn: {SHORT: [turn]}, SIZES, seed=0)
    rare = schedule.Plan(lambda turn: {SHORT: [1, 2]} if turn % 7 == 6 else {}, SIZES, seed=0)
    assert [sorted(rare.indices(step)) for step in range(3)] == [[1, 2]] * 3


def test_odds_are_those_of_the_draws():
    sample = (40, 300, 300, 24.0)
    drawn = [TABLE.find(*sample, seed=seed) for seed in range(4000)]
    odds = TABLE.odds(*sample)
    assert sum(odds.values()) == pytest.approx(1)
    assert {bucket: drawn.count(bucket) / 4000 for bucket in set(drawn)} == pytest.approx(odds, abs=0.03)
    assert TABLE.odds(40, 10, 10, 24.0) == {None: 1.0}
    assert next(islice(TABLE.odds(6, 300, 300, 24.0).items(), 1)) == (Bucket("256px", 5, "1:1"), 1.0)
