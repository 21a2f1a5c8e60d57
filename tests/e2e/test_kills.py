"""`osjax train` under SIGKILL at random moments: what was killed ends with the bits of an undisturbed run."""

import numpy as np
import pytest

from tests.e2e import faults

pytestmark = pytest.mark.timeout(1200)
KILLS = 20
STAGES = ("autoencoder", "stage1_t2v")
CONFIG = """
from configs import base, smoke

def get_config():
    stages = {name: stage for name, stage in smoke.get_config().stages.items() if name in ("autoencoder", "stage1_t2v")}
    stages["autoencoder"].steps, stages["stage1_t2v"].steps = 6, 24
    stages["autoencoder"].checkpoint.every = stages["stage1_t2v"].checkpoint.every = 3
    cfg = base.curriculum("killed", stages)
    cfg.clips.train, cfg.clips.size = 24, 64
    return cfg
"""


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    """A run of two stages, with compiled programs kept: every start would else spend its time on them."""
    folder = tmp_path_factory.mktemp("kills")
    (folder / "killed.py").write_text(CONFIG)
    return {"config": folder / "killed.py", "compilation_cache": folder / "cache"}


def test_runs_killed_twenty_times_end_with_the_same_bits(flags, tmp_path):
    """A run may finish between kills; then another one is killed."""
    undisturbed = tmp_path / "whole"
    faults.finish(undisturbed, **flags)
    places, runs = [], 0
    while len(places) < KILLS:
        workdir, runs = tmp_path / f"run{runs}", runs + 1
        places += faults.kill_often(workdir, KILLS - len(places), 5, seed=runs, **flags)
        faults.finish(workdir, **flags)
        assert faults.losses(workdir) == faults.losses(undisturbed)
        for stage in STAGES:
            got, want = faults.weights(workdir, stage), faults.weights(undisturbed, stage)
            assert got.keys() == want.keys() and len(want) > 100
            different = [name for name in want if not np.array_equal(got[name], want[name])]
            assert not different, (stage, different)
    assert runs < KILLS and len({place for place in places if place}) > 3, places
