"""Kernels of the stacked blocks as int8: a quarter of float32's memory, half of bfloat16's.

Weights only, one float32 scale for every block and output channel: the largest value of a channel is 127. Biases,
norms, the embedders and the last layer stay as they are. `ops/layers.py` multiplies by such kernels and sends gradients
through them, to what comes before and to adapters beside them; they get none themselves. Made by qwix, an optional
dependency, as its `QArray`: `qvalue`, the int8 values, and `scale`.
"""

import functools
import importlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from osjax.errors import UserError
from osjax.ops.layers import is_quantized
from osjax.types import Axis, NamedTree, Tree


def abstract_params(boxed: NamedTree, shapes: Tree) -> Tree:
    """Boxed shapes of a model's parameters with int8 kernels; allocates nothing.

    boxed: of the plain model. shapes: of its parameters, with the dtypes that all but the kernels keep. UserError
    without qwix.
    """
    qwix = library()

    def one(box, leaf):
        if not takes(box):
            return box.replace_boxed(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
        like = jax.eval_shape(functools.partial(quantized, box.names), leaf)
        return qwix.QArray(box.replace_boxed(like.qvalue), box.replace_boxed(like.scale), qtype=like.qtype)

    return jax.tree.map(one, boxed, shapes, is_leaf=is_box)


def quantized(names: tuple[str, ...], kernel: jax.Array) -> Any:
    """A kernel, or some blocks of it, as int8 with a float32 scale for each block and output channel: a `QArray`.

    names: of the kernel's axes. UserError without qwix.
    """
    contracted = 2 if names[1:3] == (Axis.HEADS, Axis.HEAD_DIM) else 1  # the projections behind attention
    axes = (0, *range(1 + contracted, kernel.ndim))
    return library().quantize(kernel.astype(jnp.float32), "int8", channelwise_axes=axes)


def dequantized(params: Tree) -> Tree:
    """Parameters with every int8 kernel as the float32 array that it stands for, others as they are."""

    def one(x):
        return x.qvalue.astype(jnp.float32) * x.scale if is_quantized(x) else x

    return jax.tree.map(one, params, is_leaf=is_quantized)


def takes(box: nn.LogicallyPartitioned) -> bool:
    """Whether a parameter becomes int8: kernels of the stacked blocks, which have at least a block, an input and an
    output axis and no norm's name. box: the parameter, or its shape, with its names."""
    return box.names[0] == Axis.LAYERS and Axis.EMBED in box.names and box.value.ndim > 2


def is_box(x: Any) -> bool:
    """Whether a leaf has names of axes around it."""
    return isinstance(x, nn.LogicallyPartitioned)


def library() -> Any:
    """qwix. UserError where it is not installed."""
    try:
        return importlib.import_module("qwix")
    except ImportError as error:
        raise UserError("int8 weights need qwix: pip install 'osjax[int8]'", status=2) from error
