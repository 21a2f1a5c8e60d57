"""Weights from disk to the devices with int8 kernels (models/int8.py), quantised on the host a block at a time."""

from functools import partial

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from osjax.models import int8
from osjax.ops.layers import is_quantized
from osjax.types import NamedTree
from osjax.weights import load
from osjax.weights.leaves import Leaves
from osjax.weights.rules import Path, whole


def place(leaves: Leaves, boxed: NamedTree, shardings: NamedTree) -> NamedTree:
    """The params tree of these leaves on the devices, with the dtypes of `boxed` and int8 kernels where it has them.

    leaves: on disk. boxed: shapes of the parameters. shardings: of the arrays, a tree like the params. The host holds
    the int8 values of one kernel of all blocks, and one block of it in float32.
    """
    flat, places = (flatten_dict(tree, is_leaf=lambda _, x: not isinstance(x, dict)) for tree in (boxed, shardings))
    plain = {path: box for path, box in flat.items() if not is_quantized(box)}
    made = {}
    for dtype in {box.value.dtype for box in plain.values()}:
        of_dtype = unflatten_dict({path: places[path] for path, box in plain.items() if box.value.dtype == dtype})
        made |= flatten_dict(load.place(leaves, of_dtype, dtype))
    for path in flat.keys() - plain.keys():
        made[path] = _place(leaves, path, flat[path], places[path])
    return unflatten_dict(made)


def _place(leaves: Leaves, path: Path, like, sharding):
    """A kernel of all blocks. like: its boxed shapes; sharding: of its arrays."""
    shape, names = leaves.shapes[path], like.qvalue.names
    quantize = jax.jit(partial(int8.quantized, names))
    host = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), nn.unbox(like))
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        for block in range(shape[0]):
            one = quantize(leaves.read(path, whole(shape, (slice(block, block + 1),))))
            host.qvalue[block : block + 1], host.scale[block : block + 1] = one.qvalue, one.scale
    return jax.tree.map(
        lambda x, where: jax.block_until_ready(jax.make_array_from_callback(x.shape, where, lambda part: x[part])),
        host,
        sharding,
    )
