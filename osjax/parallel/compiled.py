"""Compiled programs kept on disk, so that a restart and the next run of the same shapes do not compile again."""

from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

LEAST_S = 0.5  # of compilation: what takes less is not kept


def keep(folder: str) -> None:
    """Use a folder as JAX's persistent cache; empty keeps nothing."""
    if folder:
        jax.config.update("jax_enable_compilation_cache", True)  # `osjax bench` turns it off
        jax.config.update("jax_compilation_cache_dir", str(Path(folder).expanduser()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_S)
        compilation_cache.reset_cache()  # a process that has compiled already has opened its cache, or found none
