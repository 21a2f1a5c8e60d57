"""From arrays of one host to arrays of the whole mesh."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from osjax.errors import UserError
from osjax.parallel.sharding import batch_sharding


def to_global(batch: Any, mesh: Mesh) -> Any:
    """Pytree of this host's numpy rows -> global arrays split over the batch axes.

    Every host gives its own rows; together they are the global batch. UserError if the mesh does not divide the rows.
    """
    sharding = batch_sharding(mesh)
    ways = mesh.shape["data"] * mesh.shape["fsdp"]

    def one(x: np.ndarray):
        rows = x.shape[0] * jax.process_count()
        if rows % ways:
            raise UserError(
                f"a batch of {rows} does not divide over data * fsdp = {ways}: use a batch of {-(-rows // ways) * ways}"
            )
        return jax.make_array_from_process_local_data(sharding, x)

    return jax.tree.map(one, batch)
