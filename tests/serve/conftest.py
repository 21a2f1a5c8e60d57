"""A workdir, and a server of it that the tests of a file share."""

import pytest

from tests.sampling import trained
from tests.serve.server import Server


@pytest.fixture(scope="session")
def workdir(tmp_path_factory):
    return trained.write(tmp_path_factory.mktemp("served") / "tiny")


@pytest.fixture(scope="module")
def server(workdir, tmp_path_factory):
    with Server(workdir, tmp_path_factory.mktemp("server") / "folder") as running:
        yield running
