"""The watchdog ends a process that hangs, and only such a one."""

import subprocess
import sys
import time

import jax
import pytest

from osjax.training.watchdog import EXIT_STATUS, Watchdog

HANGS = """
import sys, time
from osjax.training.watchdog import Watchdog
def waits_for_ever():
    time.sleep(60)
with Watchdog(factor=3, least_s=0.5, folder=sys.argv[1]) as dog:
    for _ in range(6):
        dog.beat()
        time.sleep(0.01)
    waits_for_ever()
"""


def test_a_hung_process_ends_with_the_stacks_of_its_threads_and_the_status_for_try_again(tmp_path):
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", HANGS, str(tmp_path)], capture_output=True, text=True, timeout=50)
    assert done.returncode == EXIT_STATUS == 75 and time.monotonic() - began < 40
    assert "no step for" in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert "waits_for_ever" in (tmp_path / "hang-0.txt").read_text()


@pytest.mark.parametrize("factor", [0, 3])
def test_a_running_or_unwatched_process_is_left_alone(tmp_path, factor):
    ended = []
    with Watchdog(factor, 0.4, tmp_path, end=ended.append) as dog:
        for _ in range(12):
            dog.beat()
            time.sleep(0.05)
        if not factor:
            time.sleep(0.6)
    assert not ended and not list(tmp_path.iterdir())


def test_slow_first_steps_are_compilation_and_no_hang(tmp_path):
    ended = []
    with Watchdog(2, 0.2, tmp_path, end=ended.append) as dog:
        dog.beat()
        time.sleep(0.5)
        dog.beat()
        assert dog.allowed_s() is None
    assert not ended


@pytest.mark.parametrize("processes, said", [(2, True), (1, False)])
def test_a_step_that_fails_beside_other_processes_is_told_as_one_that_may_be_gone(tmp_path, capsys, processes, said):
    with pytest.raises(jax.errors.JaxRuntimeError):
        with Watchdog(factor=0, least_s=1, folder=tmp_path, processes=processes):
            raise jax.errors.JaxRuntimeError("UNKNOWN: Gloo all-reduce failed: reset by peer")
    error = capsys.readouterr().err
    assert ("reset by peer): one of the 2 processes is slow or gone" in error) == said
