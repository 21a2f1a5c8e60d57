"""What the runs of these tests share."""

import fcntl
import os
import shutil

import pytest

from tests.e2e import faults

CONFIG = "tests/e2e/two_stages.py"


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """Folder of compiled programs, of all workers: every start would else spend its time on the same ones."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "compiled"


@pytest.fixture(scope="session")
def undisturbed(compiled):
    """Workdir of a run of CONFIG that nothing disturbed: one for all workers, to be read and copied only."""
    folder = compiled.with_name("undisturbed")
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "finished").exists():
            faults.finish(folder / "run", config=CONFIG, compilation_cache=folder / "cache")
            (folder / "finished").touch()
    return folder / "run"


@pytest.fixture(scope="module")
def two_stages(undisturbed, tmp_path_factory):
    """Flags of a run of CONFIG, whose programs are compiled.

    A process that is killed may leave half a program, so each module has a copy of them for itself.
    """
    cache = shutil.copytree(undisturbed.with_name("cache"), tmp_path_factory.mktemp("programs") / "cache")
    return {"config": CONFIG, "compilation_cache": cache}
