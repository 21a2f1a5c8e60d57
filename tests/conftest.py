"""Every test runs on eight virtual CPU devices, with implicit rank promotion an error."""

import gc
import os

from tests import compiler_flags

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " " + compiler_flags.devices(8)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module", autouse=True)
def compiled_programs_are_dropped():
    """XLA maps memory for every program that it compiles: a whole suite would meet the kernel's limit on maps."""
    yield
    jax.clear_caches()
    gc.collect()
