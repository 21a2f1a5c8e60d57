"""Adapters beside frozen kernels: nothing at first, a dense update at full rank, the same merged and on a mesh."""

from dataclasses import replace
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from osjax import models
from osjax.errors import UserError
from osjax.models import lora
from osjax.parallel import sharding
from osjax.training import diffusion
from tests.training import tiny

EVERY = ("*_blocks", "txt_in", "final_layer", "time_in/out_layer")
CFG = lora.LoRAConfig(rank=3, alpha=6.0, targets=EVERY)
NOISE = np.random.default_rng(5).standard_normal(tiny.batch().latents_BTHWC.shape).astype(np.float32)
TIMES = np.linspace(0.1, 0.9, 8).astype(np.float32)


def adapters_of(cfg, seed=3):
    """Adapters of which b is not zero either."""
    made = nn.unbox(lora.create(cfg, tiny.boxed(), jax.random.key(0)))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: (np.asarray(x) + 0.05 * rng.standard_normal(x.shape)).astype(np.float32), made)


def loss(params, **fields):
    module = models.build(replace(tiny.CONFIG, **fields))
    return diffusion.loss(module, params, tiny.batch(), NOISE, TIMES)


@pytest.fixture(scope="module")
def found():
    """(adapters, loss and gradients of the adapters)"""
    adapters = adapters_of(CFG)
    value_and_grad = jax.value_and_grad(lambda a: loss(lora.Adapted(tiny.host_params(), a, CFG.scale)))
    return adapters, *jax.device_get(jax.jit(value_and_grad)(adapters))


def test_fresh_adapters_leave_the_model_as_it_is_and_others_do_not(found):
    fresh = nn.unbox(lora.create(CFG, tiny.boxed(), jax.random.key(0)))
    plain = jax.jit(loss)
    beside = plain(lora.Adapted(tiny.host_params(), fresh, CFG.scale))
    assert float(beside) == pytest.approx(float(plain(tiny.host_params())), rel=2e-7)  # programs sum in other orders
    merged = lora.merged(lora.Adapted(tiny.host_params(), fresh, CFG.scale))
    assert tiny.same(merged, tiny.host_params())
    assert abs(found[1] - float(plain(tiny.host_params()))) > 1e-3
    for path, pair in lora.pairs(fresh).items():
        assert not pair["b"].any() and 0 < abs(pair["a"]).max() <= 1 / np.sqrt(8), path


def test_beside_the_kernels_and_merged_into_them_adapters_are_the_same_with_the_same_gradients(found):
    adapters, value, grads = found

    def of_merged(adapters):
        return loss(lora.merged(lora.Adapted(tiny.host_params(), adapters, CFG.scale)))

    want, want_grads = jax.jit(jax.value_and_grad(of_merged))(adapters)
    assert value == pytest.approx(float(want), rel=1e-5)
    assert tiny.worst(grads, jax.device_get(want_grads)) < 1e-4
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(grads))


@pytest.mark.parametrize("path", [("double_blocks", "img_attn", "qkv"), ("single_blocks", "proj"), ("txt_in",)])
def test_at_full_rank_an_adapter_is_any_dense_update(path):
    kernel = lora.flatten_dict(tiny.host_params())[*path, "kernel"]
    update = np.random.default_rng(2).standard_normal(kernel.shape).astype(np.float32)
    cfg = lora.LoRAConfig(rank=64, alpha=32.0, targets=("/".join(path),))
    pair = lora.pairs(nn.unbox(lora.create(cfg, tiny.boxed(), jax.random.key(0))))[path]
    a, b = full_rank(path, update / cfg.scale, pair)
    adapted = lora.Adapted(tiny.host_params(), lora.unflatten_dict({(*path, "a"): a, (*path, "b"): b}), cfg.scale)
    got = lora.flatten_dict(lora.merged(adapted))
    np.testing.assert_allclose(got[*path, "kernel"], kernel + update, rtol=1e-5, atol=1e-6)
    assert not np.allclose(got[*path, "kernel"], kernel, atol=0.1)


def full_rank(path, update, pair):
    """A pair whose product is the update: the identity times it, or it times the identity, where that is smaller."""
    a, b = np.zeros(pair["a"].shape, np.float32), np.zeros(pair["b"].shape, np.float32)
    blocks = a.shape[0] if path[0].endswith("_blocks") else 1
    for block in range(blocks):
        at = (block,) if path[0].endswith("_blocks") else ()
        if path[-1] == "qkv":  # a (D, 3, r), b (3, r, h, d)
            for i in range(3):
                a[at][:, i], b[at][i] = np.eye(64), update[at][:, i]
        else:
            one_a, one_b = a[at].reshape(-1, 64), b[at].reshape(64, -1)
            n_in = one_a.shape[0]
            one_a[:, :n_in], one_b[:n_in] = np.eye(n_in), update[at].reshape(n_in, -1)
    return a, b


def test_on_a_mesh_adapters_are_split_as_their_kernels_and_give_the_same(found):
    adapters, value, grads = found
    mesh = tiny.mesh_of(1, 2, 2, 2)
    places = sharding.of_boxed(lora.create(CFG, tiny.boxed(), jax.random.key(0)), mesh)
    qkv = places["double_blocks"]["img_attn"]["qkv"]
    assert qkv["a"].spec[1] == ("fsdp", "sequence") and "tensor" in qkv["b"].spec
    put = jax.tree.map(jax.device_put, adapters, places)
    base = tiny.params_on(mesh)
    step = jax.jit(
        jax.value_and_grad(lambda a, base: loss(lora.Adapted(base, a, CFG.scale), remat="full")),
        out_shardings=(None, places),
    )
    with sharding.under(mesh):
        got, got_grads = step(put, base)
    assert float(got) == pytest.approx(float(value), rel=1e-5)
    assert tiny.worst(jax.device_get(got_grads), grads) < 1e-4


def test_in_bfloat16_gradients_of_adapters_stay_float32(found):
    adapters, value, grads = found
    half = jax.tree.map(
        lambda x: jnp.asarray(x, jnp.bfloat16), tiny.host_params()
    )  # a frozen model may be half as large
    step = jax.value_and_grad(lambda a: loss(lora.Adapted(half, a, CFG.scale), dtype="bfloat16"))
    got, got_grads = jax.jit(step)(adapters)
    assert all(g.dtype == jnp.float32 for g in jax.tree.leaves(got_grads))
    assert float(got) == pytest.approx(float(value), rel=0.05)
    flat = [np.concatenate([np.ravel(g) for g in jax.tree.leaves(tree)]) for tree in (got_grads, grads)]
    assert np.corrcoef(*flat)[0, 1] > 0.98


def test_targets_that_fit_no_layer_are_named():
    with pytest.raises(
        UserError, match=r"lora.targets: 'blocks/\*' fits no parameter; there are .*double_blocks/img_attn"
    ):
        lora.create(partial(replace, CFG)(targets=("blocks/*",)), tiny.boxed(), jax.random.key(0))
    with pytest.raises(UserError, match="rank 0 must be 1 or more"):
        lora.LoRAConfig(rank=0)
