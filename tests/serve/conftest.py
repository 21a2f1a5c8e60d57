"""A workdir, and a server of it that all tests share which neither end it nor limit it further."""

import pytest

from tests.sampling import trained
from tests.serve.server import Server
from tests.text_server import TextServer, words


@pytest.fixture(scope="session")
def workdir(tmp_path_factory):
    return trained.write(tmp_path_factory.mktemp("served") / "tiny")


@pytest.fixture(scope="session")
def text():
    """A text server, which the server asks."""
    with TextServer(words) as running:
        yield running


@pytest.fixture(scope="session")
def server(workdir, text, tmp_path_factory):
    with Server(workdir, tmp_path_factory.mktemp("server") / "folder", f"--config.refine.url={text.url}") as running:
        yield running
