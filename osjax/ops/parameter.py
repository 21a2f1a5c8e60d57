"""Parameters of a module: arrays whose initialisers carry the names of their logical axes."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.errors import ScopeParamShapeError


def logical(init: Callable, *axes: str) -> Callable:
    """Initialiser whose parameter carries logical axis names."""
    return nn.with_logical_partitioning(init, axes)


def parameter(module: nn.Module, name: str, init: Callable, shape: tuple[int, ...]) -> Any:
    """`module.param(name, init, shape)`, without tracing the initialiser again for parameters that are there.

    Flax traces it in every call to learn the shape to expect, which took up to a third of a model's tracing.
    """
    if not module.has_variable("params", name):
        return module.param(name, init, shape)
    value = nn.unbox(module.get_variable("params", name))
    stored = np.shape(jax.tree.leaves(value)[0])  # a quantised kernel is several arrays, the first of its shape
    if stored != tuple(shape):
        raise ScopeParamShapeError(name, "/".join(module.path), stored, tuple(shape))
    return value
