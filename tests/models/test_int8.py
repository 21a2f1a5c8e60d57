"""int8 kernels beneath adapters: what they stand for, and gradients through them, alone, in bfloat16 and on a mesh."""

from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from osjax import models
from osjax.models import int8, lora
from osjax.parallel import sharding
from osjax.training import diffusion
from tests.models.test_lora import CFG, NOISE, TIMES, adapters_of
from tests.training import tiny


def base(boxed):
    """The tiny model's parameters with int8 kernels."""

    def one(box, x):
        return jax.jit(lambda x: int8.quantized(box.names, x))(x) if int8.takes(box) else x

    return jax.tree.map(one, boxed, tiny.host_params(), is_leaf=int8.is_box)


def of_adapters(params, mesh=None, **fields):
    """The loss and the gradients of adapters beside these parameters."""
    module = models.build(replace(tiny.CONFIG, **fields))

    def loss(adapters, params):
        return diffusion.loss(module, lora.Adapted(params, adapters, CFG.scale), tiny.batch(), NOISE, TIMES)

    value, grads = jax.jit(jax.value_and_grad(loss))(adapters_of(CFG), params)
    return float(value), jax.device_get(grads)


@pytest.fixture(scope="module")
def small():
    return base(tiny.boxed())


@pytest.fixture(scope="module")
def beside(small):
    """Loss and gradients in float32 over int8 kernels."""
    return of_adapters(small)


def test_a_kernel_is_no_farther_from_its_int8_than_half_a_step_of_its_channel(small):
    flat = lora.flatten_dict(small, is_leaf=lambda _, x: not isinstance(x, dict))
    kernels = {path: x for path, x in flat.items() if hasattr(x, "qvalue")}
    assert ("double_blocks", "img_attn", "qkv", "kernel") in kernels and len(kernels) == 15
    plain = lora.flatten_dict(tiny.host_params())
    for path, x in kernels.items():
        off = np.abs(int8.dequantized(x) - plain[path])
        assert x.qvalue.dtype == np.int8 and (off <= 0.501 * x.scale).all() and off.max() > 0, path
        assert x.scale.shape[0] == plain[path].shape[0] and x.scale.size < plain[path].size / 8, path
    held = sum(x.nbytes for x in jax.tree.leaves(small["single_blocks"]))
    assert held < 0.3 * sum(x.nbytes for x in jax.tree.leaves(tiny.host_params()["single_blocks"]))


def test_gradients_through_int8_kernels_are_those_through_the_floats_that_they_stand_for(small, beside):
    value, grads = of_adapters(int8.dequantized(small))
    assert beside[0] == pytest.approx(value, rel=1e-5)
    assert tiny.worst(beside[1], grads) < 1e-4
    other, of_plain = of_adapters(tiny.host_params())  # what was rounded shows
    assert abs(other - value) > 1e-5 * value and 1e-3 < tiny.worst(of_plain, grads) < 0.2


def test_rematerialised_blocks_give_the_same_gradients(small, beside):
    value, grads = of_adapters(small, remat="full")
    assert beside[0] == pytest.approx(value, rel=1e-5) and tiny.worst(beside[1], grads) < 1e-4


@pytest.mark.long
def test_in_bfloat16_gradients_are_float32_and_as_near_as_over_the_dequantised_model(small, beside):
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), int8.dequantized(small))
    through, over = (of_adapters(params, dtype="bfloat16")[1] for params in (small, half))
    assert all(g.dtype == np.float32 for g in jax.tree.leaves(through))
    flat = [np.concatenate([np.ravel(g) for g in jax.tree.leaves(tree)]) for tree in (through, over, beside[1])]
    near, likewise = (np.linalg.norm(x - flat[2]) / np.linalg.norm(flat[2]) for x in flat[:2])
    assert near < 1.2 * likewise < 0.2


def test_beside_int8_kernels_and_merged_into_the_floats_adapters_give_the_same_within_1e_5(small):
    module, adapters = models.build(tiny.CONFIG), adapters_of(CFG)
    merged = lora.merged(lora.Adapted(small, adapters, CFG.scale))

    def loss(params):
        return diffusion.losses(module, params, tiny.batch(), NOISE, TIMES)

    unmerged = jax.jit(loss)(lora.Adapted(small, adapters, CFG.scale))
    np.testing.assert_allclose(jax.jit(loss)(merged), unmerged, rtol=1e-5)
    assert np.abs(jax.jit(loss)(small) - unmerged).max() > 1e-2  # the adapters do something


def test_on_a_mesh_int8_kernels_are_split_and_give_the_same(small, beside):
    mesh = tiny.mesh_of(1, 2, 2, 2)
    boxed = int8.abstract_params(tiny.boxed(), nn.unbox(tiny.boxed()))
    put = jax.tree.map(jax.device_put, small, sharding.of_boxed(boxed, mesh))
    kernel = put["single_blocks"]["mlp_in"]["kernel"].qvalue
    assert kernel.addressable_shards[0].data.size == kernel.size // 8
    with sharding.under(mesh):
        value, grads = of_adapters(put, remat="full")
    assert beside[0] == pytest.approx(value, rel=1e-5) and tiny.worst(grads, beside[1]) < 1e-4
