"""Properties that hold for all data sets, bucket tables and places to stop at, tried on drawn ones."""

import json
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from osjax.data import bucketed, buckets, index, schedule
from osjax.errors import UserError

RESOLUTIONS = ("64px", "128px", "256px", "144p")
QUICK = settings(max_examples=40, deadline=None)

rules = st.builds(
    buckets.Rule,
    keep=st.sampled_from([0.0, 0.3, 1.0]),
    batch_size=st.integers(1, 4),
    skip=st.sampled_from([None, 0.5]),
)
tables = st.builds(
    buckets.Buckets,
    st.dictionaries(
        st.sampled_from(RESOLUTIONS), st.dictionaries(st.sampled_from([1, 5, 17]), rules, min_size=1), min_size=1
    ),
    multiple=st.just(16),
    fps_max=st.sampled_from([8.0, 24.0]),
)
clips = st.tuples(
    st.integers(1, 80), st.integers(16, 600), st.integers(16, 600), st.sampled_from([8.0, 23.976, 24.0, 60.0])
)
images = st.tuples(st.just(1), st.integers(16, 600), st.integers(16, 600), st.just(math.nan))
samples = st.lists(clips | images, min_size=1, max_size=40)
seeds = st.integers(0, 2**31)


@QUICK
@given(tables, clips | images, seeds)
def test_a_bucket_never_asks_for_more_than_the_sample_has(table, sample, seed):
    frames, height, width, fps = sample
    bucket = table.find(*sample, seed=seed)
    assume(bucket is not None)
    rate, interval = buckets.reduce_fps(fps, table.fps_max)
    T, H, W = table.shape(bucket)
    assert T == bucket.num_frames and T * interval <= max(frames, interval) and rate <= table.fps_max
    assert (T == 1) == (frames // interval == 1)  # images and videos do not mix
    assert height * width >= buckets.ENOUGH_PIXELS * buckets.pixels(bucket.resolution)
    assert H % table.multiple == W % table.multiple == 0
    others = table.tables[bucket.resolution]
    assert all(
        abs(height / width - buckets.ratio(bucket.aspect)) <= abs(height / width - buckets.ratio(name))
        for name in others
    )
    rule = table.rules[bucket.resolution][bucket.num_frames]
    assert rule.keep > 0


@QUICK
@given(tables, samples, seeds)
def test_the_mapped_index_groups_as_the_rules_do_one_by_one(tmp_path_factory, table, samples, seed):
    folder = tmp_path_factory.mktemp("index")
    columns = {name: list(values) for name, values in zip(index.ENTRY.names, zip(*samples, strict=True), strict=True)}
    index.write(folder / index.FILE, [columns])
    entries = index.open_index(folder / index.FILE)
    exact = [(f, h, w, float(np.float32(fps))) for f, h, w, fps in samples]  # as the file holds rates
    want = {}
    for n, sample in enumerate(exact):
        bucket = table.find(*sample, seed=seed + n * table.count)
        if bucket is not None:
            want.setdefault(bucket, []).append(n)
    assert {
        bucket: members.tolist() for bucket, members in index.group(entries, table, seed).members(0).items()
    } == want


plans = st.builds(
    lambda sizes, batches, seed: _plan(sizes, batches, seed),
    st.lists(st.integers(0, 30), min_size=1, max_size=4),
    st.lists(st.sampled_from([2, 4]), min_size=4, max_size=4),
    seeds,
)


def _plan(sizes, batches, seed):
    """A plan of buckets with so many samples, numbered through; None when none fills a batch."""
    ends = np.cumsum([0, *sizes])
    members = {
        buckets.Bucket("64px", n + 1, "1:1"): np.arange(a, b)
        for n, (a, b) in enumerate(zip(ends, ends[1:], strict=False))
    }
    sizes_of = dict(zip(members, batches, strict=False))
    try:
        return schedule.plan(members, sizes_of, seed)
    except UserError:
        return None


@QUICK
@given(plans, st.integers(0, 3))
def test_a_pass_takes_every_bucket_s_whole_batches_and_no_sample_twice(plan, turn):
    assume(plan is not None)
    steps = range(turn * plan.pass_of(0).batches, (turn + 1) * plan.pass_of(0).batches)
    taken = [(plan.bucket(step), sample) for step in steps for sample in plan.indices(step)]
    assert len(set(taken)) == len(taken)
    assert all(sample in plan.pass_of(0).members[bucket] for bucket, sample in taken)
    for bucket in plan.buckets:
        whole = len(plan.pass_of(0).members[bucket]) // plan.batch_sizes[bucket] * plan.batch_sizes[bucket]
        assert sum(of == bucket for of, _ in taken) == whole


def read_one(batch, sample, rng):
    """A row that says what it is and what was drawn for it."""
    return {"index": sample, "frames": batch.bucket.num_frames, "drawn": rng.integers(2**32)}


def run(plan, count, processes=1, state=None):
    """Batches of all processes, put together again, and where they stand after."""
    parts = [
        bucketed.planned(plan, read_one, process_index=i, process_count=processes, threads=1) for i in range(processes)
    ]
    if state is not None:
        for part in parts:
            part.set_state(json.loads(json.dumps(state)))
    out = []
    for _ in range(count):
        rows = [next(part) for part in parts]
        out.append([tuple(int(row[name][n]) for name in row) for n in range(len(rows[0]["index"])) for row in rows])
    return out, parts[0].get_state()


@settings(max_examples=15, deadline=None)
@given(plans, st.integers(0, 9), st.integers(1, 5), st.sampled_from([(1, 2), (2, 1), (2, 2)]))
def test_after_a_stop_come_the_very_batches_that_would_have_come_on_any_number_of_hosts(plan, before, after, hosts):
    assume(plan is not None)
    whole, _ = run(plan, before + after)
    start, state = run(plan, before, processes=hosts[0])
    end, _ = run(plan, after, processes=hosts[1], state=state)
    assert start + end == whole
    if len({row for batch in whole for row in batch}) > 8:
        other = schedule.plan(plan.pass_of(0).members, plan.batch_sizes, plan.seed + 1)
        assert run(other, before + after)[0] != whole


@pytest.mark.parametrize("length", [1, 2, 7, 4096, 4097, 5000])
def test_orders_are_permutations_on_both_sides_of_where_they_are_written_out(length):
    places = range(length) if length < 100 else range(0, length, 7)
    found = [schedule._permuted(place, length, 3, 1) for place in places]
    assert len(set(found)) == len(found) and 0 <= min(found) and max(found) < length
