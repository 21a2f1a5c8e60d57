"""Weights on disk as sampling takes them: read straight to the devices, or leaf by leaf to the host."""

from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from osjax import weights
from osjax.sampling.placement import Stored
from osjax.types import ModelConfig, Tree
from osjax.weights import load
from osjax.weights.leaves import Leaves
from osjax.weights.rules import whole


def of_leaves(model_cfg: ModelConfig, open_leaves: Callable[[], Leaves], dtype: str) -> Stored:
    """Parameters of a model as `dtype`, by name. model_cfg: of it. open_leaves: called when they are first used."""
    kind = jnp.dtype(dtype)
    shapes = {path: jax.ShapeDtypeStruct(shape, kind) for path, shape in weights.leaf_shapes(model_cfg).items()}

    @cache
    def opened() -> Leaves:
        return open_leaves().cast(kind)

    def leaf(path: tuple[str, ...]) -> np.ndarray:
        return opened().read(path, whole(shapes[path].shape))

    def read(shardings: Tree) -> Tree:
        if shardings is None:
            return unflatten_dict({path: leaf(path) for path in shapes})
        return load.place(opened(), shardings)

    return Stored(unflatten_dict(shapes), read, leaf)
