"""A run of two processes holds its folder as one, and both hear that another run has it."""

import time

import pytest

from osjax import lock
from osjax.errors import UserError
from tests.forked import Forked
from tests.parallel import processes, two_alone


def test_two_processes_of_one_run_share_its_folder_and_those_of_another_are_both_refused(tmp_path):
    held, end = tmp_path / "run", tmp_path / "end"
    address = f"localhost:{processes.free_port()}"
    argv = [[address, str(i), str(held), str(end)] for i in range(2)]
    run = [Forked(two_alone.main, argv[i], tmp_path / f"process{i}") for i in range(2)]
    try:
        deadline = time.monotonic() + 120
        while not all("holds" in process.stdout for process in run):
            assert time.monotonic() < deadline, [process.stderr for process in run]
            time.sleep(0.05)
        with pytest.raises(UserError, match="osjax train, process"), lock.held(held, "osjax train"):
            pass
        address = f"localhost:{processes.free_port()}"
        argv = [[address, str(i), str(held), ""] for i in range(2)]
        said = processes.together(two_alone.main, argv, tmp_path / "refused", devices=1)
        lines = {out.strip().splitlines()[-1] for out in said}  # gloo speaks, too
        assert len(lines) == 1 and lines.pop().startswith(f"2 {held} is in use by osjax train, process"), said
        end.touch()
        assert [process.wait(60) for process in run] == [0, 0]
    finally:
        for process in run:
            process.kill()
    with lock.held(held, "osjax train"):  # free again
        pass
