"""One step gives the same loss and gradients on every mesh."""

import jax
import numpy as np
import pytest

from osjax import models
from osjax.parallel import sharding
from osjax.parallel.host import to_global
from osjax.training import diffusion
from tests.training import tiny

MESHES = [(8, 1, 1, 1), (1, 8, 1, 1), (2, 2, 2, 1), (1, 2, 4, 1), (1, 2, 2, 2)]
names = pytest.mark.parametrize("sizes", MESHES, ids=lambda s: "x".join(map(str, s)))


VALUE_AND_GRAD = jax.jit(jax.value_and_grad(diffusion.make_loss(models.build(tiny.CONFIG)), has_aux=True))


def loss_and_gradients(mesh, rows):
    params = tiny.params_on(mesh)
    with sharding.under(mesh):
        (loss, _), grads = VALUE_AND_GRAD(params, to_global(rows, mesh), tiny.run_key(mesh))
    return jax.device_get((loss, grads))


@pytest.fixture(scope="module")
def want():
    return loss_and_gradients(tiny.single(), tiny.batch())


@names
def test_loss_and_gradients_equal_those_of_one_device(sizes, want):
    loss, grads = loss_and_gradients(tiny.mesh_of(*sizes), tiny.batch())
    assert abs(loss - want[0]) < 1e-5 * want[0]
    assert tiny.worst(grads, want[1]) < 1e-5


def test_gradients_of_other_rows_differ(want):
    rows = tiny.batch()
    rows.y_vec_BC[0] += 1  # one of eight rows
    loss, grads = loss_and_gradients(tiny.mesh_of(2, 2, 2, 1), rows)
    assert abs(loss - want[0]) > 1e-4 * want[0] and tiny.worst(grads, want[1]) > 1e-2


def test_no_gradient_is_zero_so_none_goes_unchecked(want):
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(want[1]))


@pytest.mark.parametrize("sizes", [(2, 2, 2, 1)], ids=["2x2x2x1"])
def test_three_steps_on_a_mesh_follow_one_device_and_keep_their_sharding(sizes):
    followed = []
    for mesh in (tiny.mesh_of(*sizes), tiny.single()):
        state, abstract, step = tiny.start(mesh)
        for seed in range(3):
            state, metrics = step(state, to_global(tiny.batch(seed=seed), mesh), tiny.run_key(mesh))
        placed = jax.tree.map(lambda x, a: x.sharding.is_equivalent_to(a.sharding, x.ndim), state, abstract)
        assert all(jax.tree.leaves(placed))
        followed.append(jax.device_get((state, metrics)))
    (state, metrics), (one_state, one_metrics) = followed
    assert metrics["loss"] == pytest.approx(one_metrics["loss"], rel=1e-5)
    assert metrics["grad_norm"] == pytest.approx(one_metrics["grad_norm"], rel=1e-5)
    # Adam turns rounding of a tiny gradient into a whole step, so parameters are compared as a mass.
    moved = [np.abs(a - b).mean() for a, b in zip(*map(jax.tree.leaves, (state.params, one_state.params)), strict=True)]
    assert max(moved) < 1e-5


def test_tokens_are_split_over_the_sequence_axis_inside_the_step():
    def text(mesh, rules_on):
        params = tiny.params_on(mesh)
        value_and_grad = jax.jit(jax.value_and_grad(diffusion.make_loss(models.build(tiny.CONFIG)), has_aux=True))
        arguments = params, to_global(tiny.batch(), mesh), tiny.run_key(mesh)
        if not rules_on:
            return value_and_grad.lower(*arguments).as_text()
        with sharding.under(mesh):
            return value_and_grad.lower(*arguments).as_text()

    mesh = tiny.mesh_of(1, 2, 4, 1)
    split = '[{"data", "fsdp"}, {"sequence"}'
    assert split in text(mesh, rules_on=True)
    assert split not in text(mesh, rules_on=False)


def test_every_device_holds_only_its_shards():
    mesh = tiny.mesh_of(1, 2, 4, 1)
    params = tiny.params_on(mesh)
    total = sum(x.size for x in jax.tree.leaves(params))
    mine = sum(x.addressable_shards[0].data.size for x in jax.tree.leaves(params))
    assert mine < 0.2 * total  # an eighth, and some small arrays whole
    assert sum(x.size for x in jax.tree.leaves(tiny.host_params())) == total
