"""Training that may not open, write or enlarge a file any more: one line, nothing half-made, then the same bits."""

import resource
import shutil
import subprocess

import pytest

from osjax.__main__ import main
from tests.e2e import faults
from tests.e2e.test_full_training_disk import told
from tests.forked import Forked

pytestmark = pytest.mark.timeout(600)
STAGES = ("autoencoder", "stage1_t2v")
# The limit, its value, and how it is told.
LIMITS = {
    "descriptors": (resource.RLIMIT_NOFILE, 40, "no file descriptors are left for this process"),
    "file size": (resource.RLIMIT_FSIZE, 12_000, "a file would be larger than a file may be"),
}


def limited(argv):
    """`osjax ARGV...` in a process with a limit. argv: name and value of the limit come first."""
    kind, value, *rest = argv
    resource.setrlimit(int(kind), (int(value), int(value)))
    return main(rest)


def half_made(workdir):
    return [path for path in workdir.rglob("*") if path.name.endswith(".part") or "tmp" in path.name]


def flags_of(workdir, flags):
    given = [f"--config.{key}={value}" for key, value in flags.items() if key != "config"]
    return ["train", f"--config={flags['config']}", f"--config.workdir={workdir}", *given]


@pytest.mark.parametrize("name", ["descriptors", pytest.param("file size", marks=pytest.mark.long)])
def test_training_at_a_limit_ends_in_one_line_and_without_it_goes_on_with_the_same_bits(
    name, two_stages, undisturbed, tmp_path
):
    kind, value, words = LIMITS[name]
    workdir = tmp_path / "run"
    shutil.copytree(undisturbed / "data", workdir / "data")  # so that training begins
    argv = [str(int(kind)), str(value), *flags_of(workdir, two_stages)]
    process = Forked(limited, argv, tmp_path / "log").finish(300)
    lines = told(process)
    assert process.poll() == 1 and len(lines) == 1, process.stderr[-3000:]
    assert words in lines[0] and "ulimit -" in lines[0]
    assert not half_made(workdir)
    faults.finish(workdir, **two_stages)
    assert not faults.differences(workdir, undisturbed, STAGES)


def protect(folder, how):
    """Let nobody, root included, write to a folder. how: "+i", or "-i" to undo it. Skips where that cannot be."""
    if subprocess.run(["chattr", how, str(folder)], capture_output=True).returncode and how == "+i":
        pytest.skip("protecting a folder from root takes root, and ext4 or its like")


@pytest.mark.long
def test_a_folder_that_is_protected_while_a_stage_trains_ends_in_one_line_and_costs_no_bit(
    two_stages, undisturbed, tmp_path
):
    workdir = tmp_path / "run"
    process = faults.start(workdir, **two_stages)
    folder = workdir / "stage1_t2v" / "checkpoints"
    process.until(lambda: (folder / "6").exists())
    try:
        protect(folder, "+i")
        assert process.finish(300).poll() == 1
    finally:
        protect(folder, "-i")
        process.kill()
    lines = told(process)
    assert len(lines) == 1 and "could not be written" in lines[0] and "mend the folder" in lines[0], lines
    faults.finish(workdir, **two_stages)
    assert not half_made(workdir)
    assert not faults.differences(workdir, undisturbed, STAGES)
