"""A process that is slow or stands still is named by another within half a minute; when it goes on, so does the run."""

import signal
import time

import pytest

from osjax.training import metrics
from tests.forked import Forked
from tests.parallel import processes, two_processes

pytestmark = pytest.mark.timeout(300)
WITHIN_S = 30.0  # of which jax's heartbeat is the end


def until(process, words, seconds):
    """Seconds until a process says something; fails where it does not in time."""
    began = time.monotonic()
    while words not in process.stderr:
        assert process.poll() is None and time.monotonic() - began < seconds, process.stderr[-2000:]
        time.sleep(0.05)
    return time.monotonic() - began


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.long)])
def test_a_slow_process_and_one_that_is_stopped_are_named_and_the_losses_are_those_of_an_undisturbed_run(
    count, tmp_path
):
    address, last = f"localhost:{processes.free_port()}", count - 1
    paces = ["0"] * last + ["1.0"]
    argv = [[address, str(i), str(tmp_path), "never", paces[i], str(count)] for i in range(count)]
    run = [Forked(two_processes.main, argv[i], tmp_path / f"log{i}", devices=4 // count) for i in range(count)]
    try:
        while not metrics.read(tmp_path / "metrics.jsonl"):
            assert run[0].poll() is None, run[0].stderr[-2000:]
            time.sleep(0.05)
        until(run[0], f"process {last} on ", WITHIN_S)
        assert "waits for its data" in run[0].stderr and "process 0" not in run[0].stderr
        run[last].send_signal(signal.SIGSTOP)
        assert until(run[0], "gives no sign of life", WITHIN_S) > 5
        run[last].send_signal(signal.SIGCONT)
        assert [process.wait(120) for process in run] == [0] * count
    finally:
        for process in run:
            process.kill()
    assert not any((tmp_path / "checkpoints.alive").iterdir())
    told = [line for line in run[0].stderr.splitlines() if "gives no sign of life" in line]
    assert len(told) == 1 and f"process {last} on" in told[0] and "(pid " in told[0]
    losses = [line["loss"] for line in metrics.read(tmp_path / "metrics.jsonl")]
    whole = tmp_path / "whole"
    address = f"localhost:{processes.free_port()}"
    argv = [[address, str(i), str(whole), "never", "0", str(count)] for i in range(count)]
    processes.together(two_processes.main, argv, whole / "logs", devices=4 // count)
    assert losses == [line["loss"] for line in metrics.read(whole / "metrics.jsonl")]
    assert len(losses) == two_processes.STEPS
