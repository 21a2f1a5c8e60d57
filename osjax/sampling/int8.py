"""The blocks of the velocity model with int8 weights: a quarter of float32's memory, half of bfloat16's.

Weights only, one scale for every output channel; they become floats again inside each matrix product. Biases, norms,
the embedders and the last layer stay as they are. By qwix, an optional dependency.
"""

import functools
import importlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from osjax import models
from osjax.errors import UserError
from osjax.sampling.placement import Stored
from osjax.types import Axis, Tree


@functools.cache
def module(plain: nn.Module) -> nn.Module:
    """The module like `plain` that takes quantised parameters, one for equal ones. UserError without qwix."""
    return _qwix().quantize_model(plain, _provider())


def prepare(plain: nn.Module, params: Tree) -> tuple[nn.Module, Stored, Tree]:
    """The module like `plain` with int8 weights, its parameters and the boxes of their names.

    params: of the plain module, arrays or `Stored`; they are read and quantised on first use. UserError without qwix.
    """
    shapes = params.shapes if isinstance(params, Stored) else params
    boxed = abstract_params(plain, shapes)

    def read(shardings: Tree) -> Tree:
        made = quantize(plain, params)
        return made if shardings is None else jax.device_put(made, shardings)

    def leaf(path: tuple[str, ...]) -> np.ndarray:
        raise KeyError(f"{'/'.join(path)} is quantised: read the whole tree")

    return module(plain), Stored(nn.unbox(boxed), read, leaf), boxed


def abstract_params(plain: nn.Module, shapes: Tree) -> Tree:
    """Boxed shapes of the quantised parameters, from `shapes`, those of the plain module's; allocates nothing."""
    qwix = _qwix()

    def one(box, leaf):
        if not _is_quantized(box):
            return box.replace_boxed(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
        like = jax.eval_shape(functools.partial(_quantized, box.names), leaf)
        return qwix.QArray(box.replace_boxed(like.qvalue), box.replace_boxed(like.scale), qtype=like.qtype)

    return jax.tree.map(one, models.abstract_params(plain.cfg), shapes, is_leaf=_is_box)


def quantize(plain: nn.Module, params: Tree) -> Tree:
    """Host arrays of the quantised parameters, read and made on the CPU one after the other.

    plain: the module. params: its parameters, arrays or `Stored`. UserError without qwix.
    """

    def one(path, box):
        names = tuple(key.key for key in path)
        leaf = np.asarray(
            params.leaf(names) if isinstance(params, Stored) else functools.reduce(dict.get, names, params)
        )
        if not _is_quantized(box):
            return leaf
        return jax.tree.map(np.asarray, jax.jit(functools.partial(_quantized, box.names))(leaf))

    with jax.default_device(jax.devices("cpu")[0]):
        return jax.tree_util.tree_map_with_path(one, models.abstract_params(plain.cfg), is_leaf=_is_box)


def _quantized(names: tuple[str, ...], kernel: jax.Array) -> Any:
    """A kernel as int8 with float32 scales, one for each block and output channel."""
    contracted = 2 if names[1:3] == (Axis.HEADS, Axis.HEAD_DIM) else 1  # the projections behind attention
    axes = (0, *range(1 + contracted, kernel.ndim))
    return _qwix().quantize(kernel.astype(jnp.float32), "int8", channelwise_axes=axes)


def _is_quantized(box: Any) -> bool:
    """Kernels of the stacked blocks, which have at least a block, an input and an output axis and no norm's name."""
    return box.names[0] == Axis.LAYERS and Axis.EMBED in box.names and box.value.ndim > 2


def _is_box(x: Any) -> bool:
    return isinstance(x, nn.LogicallyPartitioned)


@functools.cache
def _provider() -> Any:
    qwix = _qwix()

    class Int8Weights(qwix.QuantizationProvider):
        """Lets quantised parameters through flax's check of shapes, and into matrix products."""

        def get_intercept_map(self):
            ours = {"jax.lax.dot_general": self.dot_general, "flax.linen.Module.param": self.param}
            return super().get_intercept_map() | ours

        def dot_general(self, lhs, rhs, dimension_numbers, *args, **kwargs):
            if isinstance(rhs, qwix.QArray):
                return qwix.dot_general(lhs, rhs, dimension_numbers)
            return jax.lax.dot_general(lhs, rhs, dimension_numbers, *args, **kwargs)

        def param(self, module: nn.Module, name: str, *args, **kwargs):
            value = module.get_variable("params", name)
            return value if isinstance(value, qwix.QArray) else module.param(name, *args, **kwargs)

    return Int8Weights([])


def _qwix():
    try:
        return importlib.import_module("qwix")
    except ImportError as error:
        raise UserError("int8 weights need qwix: pip install 'osjax[int8]'") from error
