"""Two processes train as one: same losses as one process, one metrics file, and a stop that both agree on."""

import re
import signal
import time

import numpy as np
import pytest

from osjax.parallel import mesh
from osjax.training import metrics
from tests.forked import Forked
from tests.parallel import processes, two_processes


def both(folder, stop_at="never"):
    """Run two processes over one folder; what each printed."""
    address = f"localhost:{processes.free_port()}"
    argv = [[address, str(index), str(folder), str(stop_at), "0"] for index in range(2)]
    return processes.together(two_processes.main, argv, folder / f"logs-{stop_at}", devices=2)


def of_one_process():
    """Losses of the same run on one device, by numpy's hand-made gradient and Adam."""
    w, m, v, out = np.ones(4), np.zeros(4), np.zeros(4), []
    for n in range(two_processes.STEPS):
        x = two_processes.rows(n).astype(np.float64)
        out.append(np.mean((x @ w) ** 2))
        grad = 2 * x.T @ (x @ w) / len(x)
        grad *= min(1, 1 / (np.linalg.norm(grad) + 1e-6))
        m, v = 0.9 * m + 0.1 * grad, 0.999 * v + 0.001 * grad**2
        w = w - 0.05 * (m / (1 - 0.9 ** (n + 1))) / (np.sqrt(v / (1 - 0.999 ** (n + 1))) + 1e-8)
    return out


def test_two_processes_stop_together_continue_and_equal_one(tmp_path):
    said = both(tmp_path, stop_at=10)
    stops = [re.search(r"stopped at step (\d+), saved", out) for out in said]
    assert all(stops) and stops[0].group(1) == stops[1].group(1), said
    step = int(stops[0].group(1))
    assert 10 <= step < two_processes.STEPS
    lines = metrics.read(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(step))

    assert not any("stopped" in out for out in both(tmp_path))
    lines = metrics.read(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(two_processes.STEPS))
    got = [line["loss"] for line in lines]
    assert got == pytest.approx(of_one_process(), rel=1e-3)
    assert got != pytest.approx(of_one_process()[::-1], rel=1e-1)


def start(folder):
    """Two processes, not waited for, whose batches take a while."""
    address = f"localhost:{processes.free_port()}"
    argv = [[address, str(i), str(folder), "never", "0.2"] for i in range(2)]
    return [Forked(two_processes.main, argv[i], folder / f"process{i}", devices=2) for i in range(2)]


def losses(folder):
    """Without gap or repeat."""
    lines = metrics.read(folder / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(len(lines)))
    return [line["loss"] for line in lines]


def test_one_killed_process_ends_the_other_with_words_and_both_started_again_lose_nothing(tmp_path):
    started = start(tmp_path)
    try:
        while len(losses(tmp_path)) < 12:
            assert started[0].poll() is None and started[1].poll() is None
            time.sleep(0.05)
        started[1].send_signal(signal.SIGKILL)  # of the coordinator, process 0, the other learns at once
        killed = time.monotonic()
        status = started[0].wait(mesh.HEARTBEAT_S + 60)
        took = time.monotonic() - killed
    finally:
        for process in started:
            process.kill()
    error = started[0].stderr
    assert status not in (0, 2)  # a supervisor takes these for final
    assert took < mesh.HEARTBEAT_S + 20, took
    assert "one of the 2 processes is slow or gone" in error and ("another task died" in error or "Gloo" in error), (
        error[-2000:]
    )
    before = losses(tmp_path)
    assert 12 <= len(before) < two_processes.STEPS
    both(tmp_path)
    both(tmp_path / "undisturbed")
    assert losses(tmp_path) == losses(tmp_path / "undisturbed") and losses(tmp_path)[: len(before)] == before
