"""This host: its memory, and its rows as arrays of the whole mesh."""

import ctypes
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from osjax.errors import UserError
from osjax.parallel.sharding import batch_sharding
from osjax.types import Tree


def to_global(batch: Tree, mesh: Mesh) -> Any:
    """Pytree of this host's numpy rows -> global arrays split over the batch axes.

    Every host gives its own rows; together they are the global batch. Arrays of jax are
    global already. UserError if the mesh does not divide the rows.
    """
    sharding = batch_sharding(mesh)
    ways = mesh.shape["data"] * mesh.shape["fsdp"]

    def check(x: np.ndarray | jax.Array) -> None:
        rows = x.shape[0] * (1 if isinstance(x, jax.Array) else jax.process_count())
        if rows % ways:
            raise UserError(
                f"a batch of {rows} does not divide over data * fsdp = {ways}: use a batch of {-(-rows // ways) * ways}"
            )

    def one(x: np.ndarray | jax.Array) -> jax.Array:
        if isinstance(x, jax.Array):  # made on the mesh: of all hosts already
            same = x.sharding.is_equivalent_to(sharding, x.ndim)
            return x if same else jax.jit(lambda a: a, out_shardings=sharding)(x)
        return jax.make_array_from_process_local_data(sharding, x)

    jax.tree.map(check, batch)
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)  # all at once: leaf by leaf takes a millisecond or two
    return jax.tree.map(one, batch)


def pixels_to_global(video_BTHWC: np.ndarray, mesh: Mesh) -> jax.Array:
    """This host's rows of levels from 0 to 255 -> the global array of pixels, float32 in [-1, 1].

    video_BTHWC: uint8, which is a quarter of the bytes to hold and to send, or float32. mesh: see `to_global`.
    """
    return _unit(to_global(video_BTHWC, mesh))


@jax.jit
def _unit(video: jax.Array) -> jax.Array:
    return video.astype(jnp.float32) / 127.5 - 1


def keep_freed_memory() -> None:
    """Let glibc keep freed memory instead of giving it back to the kernel; does nothing on other systems.

    XLA's CPU backend allocates a step's temporaries anew each time. Given back in between, every page faults again: a
    fifth of an autoencoder step was spent in the kernel, and steps ran 1.6 times as fast without it.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-4, 0)  # M_MMAP_MAX: large blocks come from the heap
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: the heap's end stays
