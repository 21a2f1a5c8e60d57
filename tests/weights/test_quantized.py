"""int8 kernels from leaves on disk: the values of the whole kernel, read a block at a time."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from osjax.models import int8
from osjax.parallel import sharding
from osjax.parts import lora
from osjax.weights import quantized
from osjax.weights.leaves import Leaves, of_params
from tests.training import tiny


def test_a_model_is_read_a_block_at_a_time_into_int8_kernels_and_bfloat16_beside_them():
    leaves, read = of_params(tiny.host_params()), {}

    def watched(path, window):
        read.setdefault(path, []).append(math.prod(w.stop - w.start for w in window))
        return leaves.read(path, window)

    boxed = lora.abstract_base(tiny.CONFIG, "int8")
    mesh = tiny.mesh_of(1, 2, 2, 2)
    got = quantized.place(Leaves(leaves.shapes, leaves.dtypes, watched), boxed, sharding.of_boxed(boxed, mesh))
    for path, like in _flat(tiny.boxed()).items():
        x, plain = _flat(got)[path], _flat(tiny.host_params())[path]
        if not int8.takes(like):
            np.testing.assert_array_equal(x, plain.astype(jnp.bfloat16))
            continue
        want = jax.jit(lambda x, names=like.names: int8.quantized(names, x))(plain)
        np.testing.assert_array_equal(x.qvalue, want.qvalue)
        np.testing.assert_allclose(x.scale, want.scale, rtol=1e-6)
        assert max(read[path]) == plain.size // plain.shape[0], path
    kernel = got["single_blocks"]["mlp_in"]["kernel"].qvalue
    assert kernel.sharding.mesh == mesh and kernel.addressable_shards[0].data.size == kernel.size // 8


def test_a_changed_value_changes_the_checksum_of_int8_kernels():
    boxed = lora.abstract_base(tiny.CONFIG, "int8")
    places = sharding.of_boxed(boxed, tiny.single())
    one = tiny.host_params()
    other = jax.tree.map(np.copy, one)
    other["single_blocks"]["proj"]["kernel"][1, 0, 0] += 0.5
    sums = [lora.checksum(quantized.place(of_params(params), boxed, places)) for params in (one, one, other)]
    assert sums[0] == sums[1] != sums[2]


def _flat(tree):
    return lora.lora.flatten_dict(tree, is_leaf=lambda _, x: not isinstance(x, dict) or isinstance(x, nn.Partitioned))
