"""Compiled programs kept on disk, so that a restart and the next run of the same shapes do not compile again."""

import os
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

FOLDER = "~/.cache/osjax"  # where they are kept if nobody says otherwise
OWN = "JAX_COMPILATION_CACHE_DIR"  # jax's own word for another
LEAST_S = 0.5  # of compilation: what takes less is not kept


def keep(folder: str) -> None:
    """Use a folder as JAX's persistent cache; empty keeps nothing.

    Where `folder` is the default one, the folder or bucket that JAX_COMPILATION_CACHE_DIR names goes before it: several
    hosts and runs may share that.
    """
    if folder == FOLDER and os.environ.get(OWN):
        folder = os.environ[OWN]
    if folder:
        jax.config.update("jax_enable_compilation_cache", True)  # `osjax bench` turns it off
        jax.config.update("jax_compilation_cache_dir", folder if "://" in folder else str(Path(folder).expanduser()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_S)
        compilation_cache.reset_cache()  # a process that has compiled already has opened its cache, or found none
