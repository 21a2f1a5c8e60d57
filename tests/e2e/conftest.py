"""What the runs of these tests share."""

import os

import pytest


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """Folder of compiled programs, of all workers: every start would else spend its time on the same ones."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "compiled"
