"""`osjax train` under SIGKILL at random moments: what was killed ends with the bits of an undisturbed run."""

import pytest

from osjax.training import goodput
from tests.e2e import faults

pytestmark = pytest.mark.timeout(1200)
KILLS = 8
WAYS = ("any moment", "start-up")  # all of them by `python -m tests.e2e.faults 200`, which CI does not run
STAGES = ("autoencoder", "stage1_t2v")


def test_runs_killed_eight_times_end_with_the_same_bits(two_stages, undisturbed, tmp_path):
    """A run may finish between kills; then another one is killed."""
    spent = goodput.read(undisturbed / goodput.FILE).spent
    start_s = spent["start"] + spent["prepare"]
    kills, runs = [], 0
    while len(kills) < KILLS:
        workdir, runs = tmp_path / f"run{runs}", runs + 1
        kills += faults.kill_often(workdir, KILLS - len(kills), start_s, seed=runs, ways=WAYS, **two_stages)
        faults.finish(workdir, **two_stages)
        assert not faults.differences(workdir, undisturbed, STAGES)
        assert not list(workdir.rglob("*orbax-checkpoint-tmp*"))
    assert len({place for _, place in kills if place}) > 3, kills
