"""`osjax train` with checkpoints on the host's own disk: killed, it goes on from there, and no other run does."""

import json
import shutil

import pytest

from osjax.errors import UserError
from osjax.parts import config, run
from osjax.training import goodput
from tests.e2e import faults
from tests.e2e.started import Started

pytestmark = pytest.mark.timeout(600)
STAGE = "stages.stage1_t2v.checkpoint"


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    """The store gets the last step alone."""
    folder = tmp_path_factory.mktemp("local")
    return {
        "config": "tests/e2e/two_stages.py",
        "compilation_cache": folder / "cache",
        "local_checkpoints": folder / "disk",
        f"{STAGE}.every": 0,
        f"{STAGE}.local_every": 2,
    }


@pytest.fixture(scope="module")
def killed(flags, tmp_path_factory):
    """A run that was killed at step nine or later of its second stage."""
    workdir = tmp_path_factory.mktemp("killed") / "run"
    process = faults.start(workdir, **flags)
    process.until(lambda: len(faults.losses(workdir).get("stage1_t2v", ())) >= 9)
    process.kill()
    process.wait(60)
    return workdir


def begins(workdir):
    """The steps from which the second stage began."""
    lines = [json.loads(line) for line in (workdir / goodput.FILE).read_text().splitlines()]
    return [line["begins"] for line in lines if line["stage"] == "stage1_t2v" and "begins" in line]


def test_a_killed_run_goes_on_from_the_disk_and_one_begun_anew_does_not_and_both_end_with_the_same_bits(
    flags, killed, tmp_path
):
    anew = shutil.copytree(killed, tmp_path / "anew")
    shutil.rmtree(anew / "stage1_t2v")  # as a user does to begin a stage anew
    faults.finish(anew, **flags)
    assert begins(anew)[-1] == 0  # what is on the disk is of the other
    half_made = killed / "stage1_t2v" / "checkpoints" / "4.orbax-checkpoint-tmp"  # as a kill in a save leaves it
    (half_made / "params").mkdir(parents=True)
    faults.finish(killed, **flags)
    assert not half_made.exists()
    assert begins(killed)[-1] >= 6 and begins(killed)[-1] % 2 == 0
    assert not faults.differences(killed, anew, ("stage1_t2v",))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({f"{STAGE}.local_every": 2}, "name one on each host's own disk"),
        ({"local_checkpoints": "/tmp/x"}, "set its checkpoint.local_every"),
        ({f"{STAGE}.local_keep": 3}, "local_every is 0"),
        ({f"{STAGE}.local_keep": 1, f"{STAGE}.local_every": 2}, "and local_keep 1 2 or more"),
        ({f"{STAGE}.local_every": 6, "local_checkpoints": "/tmp/x"}, "give fewer steps"),
    ],
)
def test_half_a_tier_is_refused(given, words):
    with pytest.raises(UserError, match=words) as refused:
        run.of_config(config.load("tests/e2e/two_stages.py", {"workdir": "/tmp/run", **given}))
    assert refused.value.status == 2


def test_a_dry_run_refuses_a_folder_that_cannot_be_written(tmp_path):
    given = [f"--config.{STAGE}.local_every=2", "--config.local_checkpoints=/proc/x"]
    argv = ["train", "--config=tests/e2e/two_stages.py", f"--workdir={tmp_path / 'run'}", "--dry-run", *given]
    done = Started(argv, tmp_path / "logs").finish(120)
    assert done.poll() == 2 and "/proc/x cannot be written to" in done.stderr, done.stderr
    assert done.stderr.count("osjax:") == 1
