"""Worker processes: what one that dies or hangs costs, and that batches are those of threads. All with real ones."""

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from osjax.data import bucketed, buckets, loader, schedule
from osjax.data.workers import Lost, Workers
from osjax.errors import UserError
from tests.data import clip_records

COUNT = 12
SHORT, LONG = buckets.Bucket("a", 3, "1:1"), buckets.Bucket("b", 8, "1:1")
WINDOWS = {SHORT: loader.Window(3, 16, 16, random_start=True), LONG: loader.Window(8, 24, 32, random_start=True)}
PROCESSES = bucketed.Readers(workers=2, timeout_s=20)


def hold(value):
    return value


def echo(held, value):
    return held, value, os.getpid()


def die(held):
    os.kill(os.getpid(), signal.SIGKILL)


def die_while_answering(held):
    threading.Timer(0.5, die, [held]).start()
    return bytes(1 << 30)  # takes longer to send


def arrays(held, bytes_each):
    return {"a": np.arange(bytes_each // 4, dtype=np.int32), "b": np.full(bytes_each // 8, 0.5), "c": "text"}


def sleep(held, seconds):
    time.sleep(seconds)


def refuse(held):
    raise UserError("not this one", status=2)


@pytest.fixture
def workers():
    with Workers(2, functools.partial(hold, "held")) as made:
        yield made


def test_calls_run_elsewhere_with_what_the_process_holds(workers):
    held, value, pid = workers.call(echo, 3, timeout_s=60)
    assert (held, value) == ("held", 3) and pid != os.getpid()


@pytest.mark.parametrize("bytes_each", [0, 64, 1 << 22])
def test_arrays_arrive_whole_whether_small_or_large(workers, bytes_each):
    got, want = workers.call(arrays, bytes_each, timeout_s=60), arrays(None, bytes_each)
    assert got["c"] == "text" and got["a"].flags.writeable
    np.testing.assert_array_equal(got["a"], want["a"])
    np.testing.assert_array_equal(got["b"], want["b"])


def test_an_error_of_a_call_is_raised_as_it_is(workers):
    with pytest.raises(UserError, match="not this one") as raised:
        workers.call(refuse, timeout_s=60)
    assert raised.value.status == 2
    assert workers.call(echo, 1, timeout_s=60)[0] == "held"


@pytest.mark.parametrize("deadly", [die, die_while_answering])
def test_a_process_that_dies_costs_its_call_alone(workers, deadly):
    before = workers.call(echo, 0, timeout_s=60)[2]
    with pytest.raises(Lost, match="exit code -9") as lost:
        workers.call(deadly, timeout_s=60)
    assert not lost.value.late
    assert workers.call(echo, 1, timeout_s=60)[2] != before


def test_a_process_that_hangs_is_ended_at_its_deadline(workers):
    pid = workers.call(echo, 0, timeout_s=60)[2]
    began = time.monotonic()
    with pytest.raises(Lost, match="past its deadline") as lost:
        workers.call(sleep, 300, timeout_s=0.3)
    assert lost.value.late and time.monotonic() - began < 20
    assert workers.call(echo, 1, timeout_s=60)[2] != pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_what_cannot_start_is_said_by_its_own_error():
    with Workers(1, functools.partial(refuse, None)) as workers, pytest.raises(UserError, match="not this one"):
        workers.call(echo, 1, timeout_s=60)


def test_processes_end_with_the_one_they_work_for_even_when_it_is_killed():
    program = (
        "import functools, sys, time\n"
        "from osjax.data.workers import Workers\n"
        "from tests.data.test_workers import echo, hold, sleep\n"
        "workers = Workers(1, functools.partial(hold, 0))\n"
        "print(workers.call(echo, 1, timeout_s=60)[2], flush=True)\n"
        "workers.call(sleep, 300, timeout_s=300)\n"
    )
    run = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    pid = int(run.stdout.readline())
    os.kill(pid, 0)
    run.kill()
    run.wait()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError(f"worker {pid} outlived its parent")


class Source(list):
    """Records, of which that number `deadly` does `harm` when it is read in a worker: a decoder that misbehaves.

    once: a file that the first reading makes; with it, only that one does harm, as when memory runs out. reader: the
    process that is no worker.
    """

    deadly, harm, once, reader = None, None, None, None

    def __getitem__(self, index):
        if index == self.deadly and os.getpid() != self.reader:
            if self.once is None or not os.path.exists(self.once):
                if self.once is not None:
                    open(self.once, "x").close()
                if self.harm == "dies":
                    die(None)
                # The path alone can be read: it is the clip that hangs.
                return {**super().__getitem__(index), "video": Hanging()}
        return super().__getitem__(index)


class Hanging(bytes):
    """Contents whose reading does not end."""

    def __bool__(self):
        time.sleep(600)


@pytest.fixture(scope="module")
def records():
    return clip_records.of_clips(COUNT)


def harmful(records, harm, once=None):
    source = Source(records)
    source.deadly, source.harm, source.once, source.reader = 5, harm, once, os.getpid()
    return source


def batches(source, readers=PROCESSES, seed=0):
    members = {SHORT: range(8), LONG: range(8, COUNT)}
    plan = schedule.plan(members, {SHORT: 4, LONG: 2}, seed)
    return bucketed.batches(source, plan, WINDOWS, readers=readers)


def same(got, want):
    return list(got["index"]) == list(want["index"]) and np.array_equal(got["video"], want["video"])


def test_batches_of_processes_are_bit_equal_to_those_of_threads(records):
    got, want, other = batches(records), batches(records, bucketed.Readers()), batches(records, seed=1)
    pairs = [(next(got), next(want), next(other)) for _ in range(8)]
    assert all(same(a, b) and list(a["text"]) == list(b["text"]) for a, b, _ in pairs)
    assert not all(same(a, c) for a, _, c in pairs)


def test_a_saved_place_resumes_exactly_from_threads_to_processes_and_back(records):
    first, whole = batches(records, bucketed.Readers()), batches(records)
    for _ in range(3):
        next(first), next(whole)
    for readers in (PROCESSES, bucketed.Readers()):
        again = batches(records, readers)
        again.set_state(json.loads(json.dumps(first.get_state())))
        for _ in range(2):
            next(first)
            assert same(next(again), next(whole))
        first = again


def test_a_process_that_is_killed_in_the_middle_of_a_pass_changes_no_batch(records, tmp_path):
    got = batches(harmful(records, "dies", str(tmp_path / "killed")))
    want = batches(records, bucketed.Readers())
    assert all(same(next(got), next(want)) for _ in range(6)) and (tmp_path / "killed").exists()


@pytest.mark.parametrize("harm, timeout_s", [("dies", 20), ("hangs", 3)])
def test_a_clip_that_kills_or_hangs_its_process_is_replaced_as_one_that_does_not_decode(
    records, harm, timeout_s, caplog
):
    damaged = list(records)
    damaged[5] = {**records[5], "video": b"no video"}
    got = batches(harmful(records, harm), bucketed.Readers(workers=2, timeout_s=timeout_s))
    want, whole = batches(damaged, bucketed.Readers()), batches(records, bucketed.Readers())
    rows = [(next(got), next(want), next(whole)) for _ in range(4)]
    assert all(list(a["index"]) == list(b["index"]) for a, b, _ in rows)
    assert any(5 in c["index"] for _, _, c in rows) and not any(5 in a["index"] for a, _, _ in rows)
    for a, b, c in rows:
        kept = a["index"] == c["index"]
        np.testing.assert_array_equal(a["video"][kept], b["video"][kept])
    assert any("replaced" in r.getMessage() and "5" in r.getMessage() for r in caplog.records)


def children():
    """The processes that this one started and that have not ended."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # gone by now
            state, parent = path.read_text().rsplit(")", 1)[1].split()[:2]
            parents[path.parent.name] = None if state == "Z" else int(parent)
    return {pid for pid, parent in parents.items() if parent == os.getpid()}


def test_processes_end_when_their_batches_are_no_longer_needed(records):
    before = children()
    made = batches(records)
    next(made)
    assert children() - before
    del made
    deadline = time.monotonic() + 20
    while children() - before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not children() - before


def test_processes_run_no_line_of_the_script_that_starts_them(tmp_path):
    """As those of the standard library do: a script without a guard would start processes without end."""
    script = tmp_path / "script.py"
    script.write_text(
        "import functools\n"
        "from osjax.data.workers import Workers\n"
        "from tests.data.test_workers import echo, hold\n"
        "print('ran', flush=True)\n"
        "made = Workers(2, functools.partial(hold, 0))\n"
        "print(made.call(echo, 1, timeout_s=60)[1])\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, env=env, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ran\n1\n", "")


def test_memory_and_the_time_to_start_are_limited():
    with Workers(1, functools.partial(hold, 0), memory_gb=1) as limited, pytest.raises(MemoryError):
        limited.call(arrays, 1 << 30, timeout_s=60)
    with (
        Workers(1, functools.partial(time.sleep, 300), start_s=0.5) as late,
        pytest.raises(Lost, match="as it started"),
    ):
        late.call(echo, 1, timeout_s=60)
