"""A workdir, and a server of it that all tests share which neither end it nor limit it further."""

import pytest

from tests.sampling import trained
from tests.serve.server import Server


@pytest.fixture(scope="session")
def workdir(tmp_path_factory):
    return trained.write(tmp_path_factory.mktemp("served") / "tiny")


@pytest.fixture(scope="session")
def server(workdir, tmp_path_factory):
    with Server(workdir, tmp_path_factory.mktemp("server") / "folder") as running:
        yield running
