"""`osjax train` under SIGKILL at random moments: what was killed ends with the bits of an undisturbed run."""

import time

import pytest

from tests.e2e import faults

pytestmark = pytest.mark.timeout(1200)
KILLS = 20
STAGES = ("autoencoder", "stage1_t2v")


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    """Compiled programs are kept, for these runs alone: one that was killed may leave half of one."""
    return {"config": "tests/e2e/two_stages.py", "compilation_cache": tmp_path_factory.mktemp("kills") / "cache"}


def test_runs_killed_twenty_times_end_with_the_same_bits(flags, tmp_path):
    """A run may finish between kills; then another one is killed."""
    undisturbed, started = tmp_path / "whole", time.monotonic()
    faults.finish(undisturbed, **flags)
    places, runs, seconds = [], 0, faults.life(time.monotonic() - started)
    while len(places) < KILLS:
        workdir, runs = tmp_path / f"run{runs}", runs + 1
        killed, seconds = faults.kill_often(workdir, KILLS - len(places), seconds, seed=runs, **flags)
        places += killed
        faults.finish(workdir, **flags)
        assert not faults.differences(workdir, undisturbed, STAGES)
    assert runs < KILLS and len({place for place in places if place}) > 3, places
