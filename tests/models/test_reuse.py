"""Calls of the MMDiT that may skip its blocks, against whole calls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from osjax.errors import UserError
from osjax.models import reuse, velocity
from osjax.models.lora import Adapted
from tests.sampling import tiny

SIZE = 2, 4, 4


@pytest.fixture(scope="module")
def model():
    module, params, _ = tiny.parts({"depth": 3, "depth_single_blocks": 2})
    keys = jax.random.split(jax.random.key(0), 3)
    x = module.pack(jax.random.normal(keys[0], (1, *SIZE, 8)))
    cond = jnp.zeros((1, *SIZE, 9))
    told = velocity.Given(jax.random.normal(keys[1], (1, 4, 16)), jax.random.normal(keys[2], (1, 16)), cond)
    return module, params, x, jnp.array([0.5]), told


def call(model, signal, skip, predicted):
    module, params, x, t, told = model

    @jax.jit
    def run(params, skip, predicted):
        asked = reuse.Reuse(signal, lambda _: skip, predicted)
        return reuse.of_packed(module, params, x, SIZE, t, told, asked)

    return run(params, skip, predicted)


@pytest.mark.parametrize("signal", reuse.SIGNALS)
def test_a_call_that_runs_the_blocks_is_the_whole_call_bit_for_bit(model, signal):
    module, params, x, t, told = model
    want = jax.jit(lambda p: velocity.of_packed(module, p, x, SIZE, t, told))(params)
    first = call(model, signal, False, None)
    again = call(model, signal, False, first.residual_BND * 0.5)
    np.testing.assert_array_equal(first.velocity_BNC, want)
    np.testing.assert_array_equal(again.velocity_BNC, want)
    np.testing.assert_array_equal(again.residual_BND, first.residual_BND)
    assert (first.signal_BND is None) == (signal == "none") and not first.skipped and not again.skipped


@pytest.mark.parametrize("signal", reuse.SIGNALS)
def test_a_call_that_skips_them_adds_what_is_predicted(model, signal):
    first = call(model, signal, False, None)
    exact = call(model, signal, True, first.residual_BND)
    assert exact.skipped
    np.testing.assert_allclose(exact.velocity_BNC, first.velocity_BNC, atol=1e-5)
    wrong = call(model, signal, True, first.residual_BND * 0.5)
    np.testing.assert_array_equal(wrong.residual_BND, first.residual_BND * 0.5)
    assert np.abs(wrong.velocity_BNC - first.velocity_BNC).max() > 1e-2


def test_the_signal_of_the_input_is_what_the_first_block_attends_over(model):
    module, params, x, t, told = model
    got = call(model, "input", False, None).signal_BND
    assert got.shape == (1, 32, 32)
    other = call((module, params, x, t + 0.1, told), "input", False, None).signal_BND
    assert np.abs(got - other).max() > 1e-3  # the modulation knows the time
    # Modulated norms of the same tokens: without shift and scale the rows have mean 0 and deviation 1.
    still = {**params, "double_blocks": jax.tree.map(lambda x: x, params["double_blocks"])}
    still["double_blocks"]["img_mod"] = jax.tree.map(jnp.zeros_like, params["double_blocks"]["img_mod"])
    plain = call((module, still, x, t, told), "input", False, None).signal_BND
    np.testing.assert_allclose(plain.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(plain.std(-1), 1, atol=1e-2)


def test_adapters_of_the_first_blocks_modulation_are_in_the_signal(model):
    module, params, x, t, told = model
    a, b = jnp.full((3, 32, 2), 0.1), jnp.full((3, 2, 192), 0.1)
    adapted = Adapted(params, {"double_blocks": {"img_mod": {"lin": {"a": a, "b": b}}}})
    with_them, without = (call((module, p, x, t, told), "input", False, None) for p in (adapted, params))
    assert np.abs(with_them.signal_BND - without.signal_BND).max() > 1e-3


def test_the_first_blocks_output_is_what_a_model_of_one_block_has_ahead_of_its_end(model):
    """The signal and the rest of the blocks together add what all blocks add."""
    whole, parts = call(model, "none", False, None), call(model, "first_block", False, None)
    np.testing.assert_allclose(parts.signal_BND + parts.residual_BND, whole.residual_BND, atol=1e-4)
    assert np.abs(parts.signal_BND).max() > 1e-2 and np.abs(parts.residual_BND).max() > 1e-2


def test_a_model_without_double_stream_blocks_has_no_first_block():
    module, params, _ = tiny.parts({"depth": 0})
    x, told = jnp.zeros((1, 32, 8)), velocity.Given(jnp.zeros((1, 4, 16)), jnp.zeros((1, 16)), jnp.zeros((1, *SIZE, 9)))
    with pytest.raises(UserError, match="no double-stream block to look at"):
        call((module, params, x, jnp.zeros(1), told), "first_block", False, None)
    assert call((module, params, x, jnp.zeros(1), told), "none", False, None).velocity_BNC.shape == x.shape


def test_what_is_skipped_is_not_computed(model):
    """The compiled program has the blocks' products in one branch of a conditional alone."""
    module, params, x, t, told = model

    def run(params, skip, predicted):
        return reuse.of_packed(module, params, x, SIZE, t, told, reuse.Reuse("none", lambda _: skip, predicted))

    residual = jnp.zeros((1, 32, 32))
    jaxpr = jax.make_jaxpr(run)(params, False, residual)
    (cond,) = [eqn for eqn in jaxpr.eqns if eqn.primitive.name == "cond"] or _inner(jaxpr)
    products = [str(branch).count("dot_general") for branch in cond.params["branches"]]
    assert sorted(products)[0] == 0 and sorted(products)[1] > 10


def _inner(jaxpr):
    for eqn in jaxpr.eqns:
        for value in eqn.params.values():
            inner = getattr(value, "jaxpr", None)
            if inner is not None and (conds := [e for e in inner.eqns if e.primitive.name == "cond"]):
                return conds
    return []
