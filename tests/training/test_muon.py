"""Muon takes the matrices of blocks and makes their momentum orthogonal; AdamW has the rest, on every mesh."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from osjax import models
from osjax.configs import demo
from osjax.errors import UserError
from osjax.parallel.host import to_global
from osjax.parts.groups import to_dataclass
from osjax.training import muon, optimizer
from tests.training import tiny

MUON = optimizer.OptimizerConfig(name="muon", lr=0.5, eps=1e-8, clip_norm=0.0)


def numbers_of(params):
    """What each parameter is to Muon, by its path."""
    flat = flatten_dict(muon.dimension_numbers(nn.unbox(params)), sep="/")
    return {path: (tuple(n.reduction_axis), tuple(n.output_axis)) for path, n in flat.items() if n is not None}


def test_matrices_of_the_video_model_are_the_kernels_of_its_blocks_layer_by_layer():
    numbers = numbers_of(tiny.boxed())
    assert numbers["single_blocks/attn/qkv/kernel"] == ((1,), (3, 4))  # q, k and v apart
    assert numbers["double_blocks/img_proj/kernel"] == ((1, 2), (3,))
    assert numbers["double_blocks/txt_mlp_in/kernel"] == ((1,), (2,))
    kernels = {path for path in flatten_dict(nn.unbox(tiny.boxed()), sep="/") if path.endswith("kernel")}
    assert set(numbers) == {path for path in kernels if path.startswith(("double_blocks", "single_blocks"))}


def test_matrices_of_an_autoencoder_are_its_inner_convolutions_but_depthwise_ones():
    cfg = models.config("dcae", **to_dataclass_values(demo.autoencoder_model()))
    numbers, shapes = (
        numbers_of(models.abstract_params(cfg)),
        flatten_dict(nn.unbox(models.abstract_params(cfg)), sep="/"),
    )
    assert {value for value in numbers.values()} == {((0, 1, 2, 3), (4,))}
    left = {path for path in shapes if path.endswith("kernel")} - set(numbers)
    assert left and all("project" in path or shapes[path].shape[3] == 1 for path in left)


def to_dataclass_values(cfg):
    return {
        f.name: getattr(made, f.name)
        for made in [to_dataclass(models.config_class("dcae"), cfg)]
        for f in dataclasses.fields(made)
    }


def update_of(cfg, params, grads):
    tx = optimizer.make(cfg)
    return tx.update(grads, tx.init(params), params)[0]


def test_an_update_is_the_nearest_orthogonal_matrix_in_the_size_of_adams():
    rng = np.random.default_rng(0)
    grad = rng.standard_normal((2, 6, 3, 2, 4)).astype(np.float32)  # two layers, from 6 to q, k, v of 2 heads of 4
    grad[..., 0] *= 30  # one direction that drowns the others
    params = {"single_blocks": {"attn": {"qkv": {"kernel": jnp.zeros(grad.shape)}}}}
    grads = jax.tree.map(lambda _: jnp.asarray(grad), params)
    by_muon, by_adam = (
        -np.asarray(jax.tree.leaves(update_of(cfg, params, grads))[0])
        for cfg in (MUON, dataclasses.replace(MUON, name="adamw"))
    )
    for layer in range(2):
        for which in range(3):
            one = np.s_[layer, :, which]
            values = np.linalg.svd(by_muon[one].reshape(6, 8), compute_uv=False) / (0.5 * 0.2 * np.sqrt(8))
            assert 0.65 < values.min() and values.max() < 1.25, values  # as near to 1 as five of its steps come
            u, _, vt = np.linalg.svd(grad[one].reshape(6, 8), full_matrices=False)
            assert np.corrcoef((u @ vt).ravel(), by_muon[one].ravel())[0, 1] > 0.97
            control = np.linalg.svd(by_adam[one].reshape(6, 8), compute_uv=False)
            assert control.max() / control.min() > 1.5 * values.max() / values.min()


def test_what_is_no_matrix_gets_the_update_of_adamw_that_looks_ahead():
    rng = np.random.default_rng(1)
    params = {
        "img_in": {"kernel": rng.standard_normal((4, 6))},
        "double_blocks": {
            "img_mlp_in": {"kernel": rng.standard_normal((2, 6, 8)), "bias": rng.standard_normal((2, 8))}
        },
    }
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    grads = jax.tree.map(lambda x: x + 1, params)
    adam = optax.adamw(MUON.lr, MUON.b1, MUON.b2, MUON.eps, weight_decay=0.0, nesterov=True)
    want = flatten_dict(adam.update(grads, adam.init(params), params)[0])
    got = flatten_dict(update_of(MUON, params, grads))
    for path in got:
        assert np.allclose(got[path], want[path], rtol=1e-5) == (path[-2:] != ("img_mlp_in", "kernel")), path


def test_a_model_without_matrices_and_an_unknown_name_are_refused():
    with pytest.raises(UserError, match="no matrix of the model trains: use adamw"):
        optimizer.make(MUON).init({"w": jnp.ones(5)})
    with pytest.raises(UserError, match="unknown name 'moun' of an optimizer: use one of adamw, muon"):
        optimizer.OptimizerConfig(name="moun")


@pytest.mark.long
def test_steps_on_a_mesh_follow_one_device_and_keep_one_moment_of_matrices():
    cfg = optimizer.OptimizerConfig(name="muon", lr=1e-3, eps=1e-8, ema_decay=0.9)
    followed = []
    for mesh in (tiny.mesh_of(2, 2, 1, 2), tiny.single()):
        state, _, step = tiny.start(mesh, cfg)
        for seed in range(2):
            state, _ = step(state, to_global(tiny.batch(seed=seed), mesh), tiny.run_key(mesh))
        followed.append(jax.device_get(state))
    moved = [np.abs(a - b).mean() for a, b in zip(*(jax.tree.leaves(s.params) for s in followed), strict=True)]
    assert max(moved) < 1e-5
    second = optax.tree_utils.tree_get(followed[1].opt_state, "nu")
    kept = {"/".join(path) for path, x in flatten_dict(second).items() if hasattr(x, "shape")}
    assert "img_in/kernel" in kept and "single_blocks/proj/kernel" not in kept
