"""The video model with int8 kernels (models/int8.py) for sampling, quantised on the host as they are read."""

import functools

import flax.linen as nn
import jax
import numpy as np

from osjax import models
from osjax.models import int8
from osjax.sampling.placement import Stored
from osjax.types import Tree


def prepare(plain: nn.Module, params: Tree) -> tuple[Stored, Tree]:
    """Parameters with int8 kernels for the module `plain`, and the boxes of their names.

    params: of the module, arrays or `Stored`; they are read and quantised on first use. UserError without qwix.
    """
    shapes = params.shapes if isinstance(params, Stored) else params
    boxed = int8.abstract_params(models.abstract_params(plain.cfg), shapes)

    def read(shardings: Tree) -> Tree:
        made = quantize(plain, params)
        return made if shardings is None else jax.device_put(made, shardings)

    def leaf(path: tuple[str, ...]) -> np.ndarray:
        raise KeyError(f"{'/'.join(path)} is quantised: read the whole tree")

    return Stored(nn.unbox(boxed), read, leaf), boxed


def quantize(plain: nn.Module, params: Tree) -> Tree:
    """Host arrays of the quantised parameters, read and made on the CPU one after the other.

    plain: the module. params: its parameters, arrays or `Stored`. UserError without qwix.
    """

    def one(path, box):
        names = tuple(key.key for key in path)
        leaf = np.asarray(
            params.leaf(names) if isinstance(params, Stored) else functools.reduce(dict.get, names, params)
        )
        if not int8.takes(box):
            return leaf
        return jax.tree.map(np.asarray, jax.jit(functools.partial(int8.quantized, box.names))(leaf))

    with jax.default_device(jax.devices("cpu")[0]):
        return jax.tree_util.tree_map_with_path(one, models.abstract_params(plain.cfg), is_leaf=int8.is_box)
