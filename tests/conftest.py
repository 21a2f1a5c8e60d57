"""Every test runs on eight virtual CPU devices, with implicit rank promotion an error."""

import atexit
import gc
import os
import shutil
import tempfile

from tests import compiler_flags

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " " + compiler_flags.devices(8)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # of processes that tests start, too; see compiler_flags

if "PYTEST_XDIST_WORKER" not in os.environ:  # workers, and processes that tests start, inherit it
    _compiled = tempfile.mkdtemp(prefix="osjax-compiled-")
    atexit.register(shutil.rmtree, _compiled, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled  # many tests compile the same programs
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
gc.set_threshold(100_000)  # as the command line does; see osjax.__main__


def pytest_collection_modifyitems(items):
    """Files that may take longest start first, so that no worker is left alone with one at the end."""

    def limit(item):
        found = item.get_closest_marker("timeout")
        return found.args[0] if found else 0

    longest = {}
    for item in items:
        longest[item.path] = max(longest.get(item.path, 0), limit(item))
    items.sort(key=lambda item: -longest[item.path])


def pytest_collection_finish():
    """What is imported by now stays: looking through it again after every module took half a second each."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def compiled_programs_are_dropped(request):
    """XLA maps memory for every program that it compiles: a whole suite would meet the kernel's limit on maps."""
    jax.config.update("jax_disable_most_optimizations", request.node.get_closest_marker("optimised") is None)
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture
def disk(tmp_path):
    """A disk to fill up, of the size that it is mounted with; its first mount skips the test where none can be."""
    from tests.small_disk import SmallDisk

    made = SmallDisk(tmp_path / "disk")
    yield made
    made.close()


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium under Playwright, for tests that are skipped without them."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as player:
        chromium = player.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield chromium
        chromium.close()
