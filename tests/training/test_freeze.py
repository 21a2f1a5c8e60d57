"""Frozen parameters stay bit for bit, cost no moments and no average, and all else trains as if they were constants."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.interpreters import partial_eval

from osjax import models
from osjax.errors import UserError
from osjax.ops import flops
from osjax.parallel import sharding
from osjax.parallel.host import to_global
from osjax.training import checkpoint, diffusion, optimizer, update
from osjax.training import state as states
from osjax.training.freeze import Freeze, fill
from osjax.weights import load
from tests.training import tiny

BLOCKS = Freeze(("double_blocks", "*/modulation*"), but=("double_blocks/img_*",))
ADAM = replace(tiny.ADAM, freeze=BLOCKS)


def flat(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def is_frozen(name):
    return (name.startswith("double_blocks/") and not name.startswith("double_blocks/img_")) or "/modulation" in name


@pytest.fixture(scope="module")
def stepped():
    """(state before on the host, state after on the mesh, abstract state, metrics, step)"""
    mesh = tiny.mesh_of(1, 4, 1, 2)
    state, abstract, step = tiny.start(mesh, ADAM)
    before = jax.device_get(state)
    after, metrics = step(state, to_global(tiny.batch(), mesh), tiny.run_key(mesh))
    return before, after, abstract, jax.device_get(metrics), step


def test_frozen_parameters_stay_and_have_neither_moments_nor_average(stepped):
    before, after, abstract, metrics, _ = stepped
    names = set(flat(before.params))
    trained = {name for name in names if not is_frozen(name)}
    assert 10 < len(trained) < len(names) - 5
    changed = {n for n, x in flat(before.params).items() if not np.array_equal(x, flat(after.params)[n])}
    assert changed == trained
    assert flat(after.ema).keys() == trained
    for moment in ("mu", "nu"):
        assert flat(optax.tree_utils.tree_get(after.opt_state, moment)).keys() == trained
    assert any(not x.sharding.is_fully_replicated for x in jax.tree.leaves(abstract.ema))
    assert "grad_norm/single_blocks" in metrics and metrics["grad_norm"] > 0


def test_what_trains_does_as_if_the_rest_were_constants():
    rows = np.random.default_rng(0).standard_normal((8, 5)).astype(np.float32)
    params = {"a": jnp.ones(5), "b": {"w": jnp.full(5, 2.0)}}

    def loss_of_both(params, batch, key):
        return jnp.mean((batch @ params["a"] * (batch @ params["b"]["w"])) ** 2)

    def one(cfg, params, loss):
        tx = optimizer.make(cfg)
        state = states.create(lambda: params, tx, with_ema=False, freeze=cfg.freeze)
        step = jax.jit(partial(update.apply, loss_fn=loss, tx=tx, cfg=cfg))
        for _ in range(3):
            state, metrics = step(state, rows, jax.random.key(0))
        return state.params, metrics

    cfg = optimizer.OptimizerConfig(lr=0.1, eps=1e-8, accumulate=2)
    frozen, metrics = one(replace(cfg, freeze=Freeze(("b",))), params, loss_of_both)
    constant = params["b"]
    alone, want = one(cfg, {"a": params["a"]}, lambda p, batch, key: loss_of_both({**p, "b": constant}, batch, key))
    np.testing.assert_array_equal(frozen["a"], alone["a"])
    np.testing.assert_array_equal(frozen["b"]["w"], params["b"]["w"])
    assert metrics["grad_norm"] == want["grad_norm"] and "grad_norm/b" not in metrics
    both, _ = one(cfg, params, loss_of_both)
    assert not np.array_equal(both["a"], frozen["a"])


def test_the_step_computes_no_gradient_of_what_is_frozen():
    """Without the kernels of the blocks, the largest share, a step needs about two passes of three."""

    def counted(cfg):
        tx = optimizer.make(cfg)
        state = jax.eval_shape(lambda: states.create(tiny.host_params, tx, with_ema=False, freeze=cfg.freeze))
        step = diffusion.make_step(models.build(tiny.CONFIG), tx, cfg)
        traced = jax.make_jaxpr(step)(state, tiny.batch(), jax.random.key(0))
        used, _ = partial_eval.dce_jaxpr(traced.jaxpr, [True] * len(traced.out_avals))  # as the compiler does
        return flops.of_program(jaxpr_as_fun(ClosedJaxpr(used, traced.consts)), *(x.aval for x in used.invars))

    frozen = replace(tiny.ADAM, freeze=Freeze(("double_blocks", "single_blocks")))
    assert counted(frozen) < 0.8 * counted(tiny.ADAM)


def test_a_checkpoint_holds_whole_parameters_and_a_whole_average_and_goes_on_bit_for_bit(stepped, tmp_path):
    _, after, abstract, _, step = stepped
    want = jax.device_get(after)
    store = checkpoint.Checkpoints(tmp_path / "checkpoints")
    store.save(1, after, {"place": 8}, {})
    store.wait()
    got, data = store.restore(abstract)
    assert tiny.same(got, want) and data == {"place": 8}
    assert jax.tree.structure(got) == jax.tree.structure(want)
    places = jax.tree.map(lambda x, a: x.sharding == a.sharding, got, abstract)
    assert jax.tree.all(places)
    mesh = tiny.mesh_of(1, 2, 1, 2)
    elsewhere, _ = store.restore(tiny.start(mesh, ADAM)[1])
    assert tiny.same(elsewhere, want)
    leaves = load.open_leaves(tiny.CONFIG, store.folder, average=True)
    average = load.place(leaves, jax.tree.map(lambda x: x.sharding, abstract.params))
    assert tiny.same(average, fill(want.ema, want.params)) and not tiny.same(average, want.params)
    with pytest.raises(UserError, match="does not fit this config"):
        store.restore(tiny.start(mesh)[1])  # another set of frozen parameters
    store.close()


@pytest.mark.parametrize(
    "freeze, words",
    [
        (
            Freeze(("double_block",)),
            "freeze.params: 'double_block' fits no parameter; there are .*double_blocks/img_attn",
        ),
        (Freeze(("*",), ("img_on",)), "freeze.but: 'img_on' fits no parameter; there are .*img_in/bias"),
        (Freeze(("*",)), "leaves nothing to train"),
    ],
)
def test_patterns_that_fit_nothing_are_named(freeze, words):
    with pytest.raises(UserError, match=words):
        freeze.trained(tiny.boxed())


def test_a_box_of_logical_names_counts_as_one_parameter():
    trained = Freeze(("img_in",)).trained(tiny.boxed())
    places = sharding.of_boxed(trained, tiny.single())
    assert places["img_in"] == {"kernel": None, "bias": None} and places["txt_in"]["kernel"] is not None
