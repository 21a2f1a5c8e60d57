"""A step done twice: the same bits where devices compute rightly, and every flipped bit is seen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from osjax.errors import UserError
from osjax.training import goodput, twice
from osjax.training.health import HealthConfig
from tests.training.test_loop import Run

TREE = {
    "f32": jnp.linspace(-1, 1, 24, dtype=jnp.float32).reshape(2, 3, 4),
    "bf16": jnp.linspace(-1, 1, 6, dtype=jnp.bfloat16),
    "i32": jnp.arange(5),
    "bool": jnp.array([True, False]),
    "f8": jnp.ones(3, jnp.float8_e4m3fn),
    "key": jax.random.key(3),
    "nan": jnp.array(jnp.nan),
    "none": None,
}


def flipped(x, bit, at):
    """The array with one bit of one number changed, as a bad chip changes it."""
    host = np.array(jax.device_get(x))
    raw = host.reshape(-1).view(np.uint8)
    raw[(at * host.itemsize + bit // 8) % raw.size] ^= np.uint8(1 << bit % 8)
    return jax.device_put(host, x.sharding)


@pytest.mark.parametrize("name, bits", [("f32", 32), ("bf16", 16), ("i32", 32), ("f8", 8)])
def test_every_bit_of_every_number_counts(name, bits):
    before = twice.sums(TREE)
    assert before == twice.sums(twice.copy(TREE))
    for at in range(TREE[name].size):
        for bit in range(bits):
            after = twice.sums({**TREE, name: flipped(TREE[name], bit, at)})
            assert twice.different(before, after) == [name]


def test_numbers_that_changed_places_are_different():
    x = TREE["f32"]
    assert twice.sums({"x": x}) != twice.sums({"x": x[:, ::-1]}) and twice.sums({"x": x}) != twice.sums({"x": x[::-1]})
    assert twice.sums({"x": TREE["i32"]}) != twice.sums({"x": TREE["i32"][::-1]})


def broken_once(call, bit=3):
    """A compiled step whose result has another bit in the given call."""

    def wrap(step):
        calls = []

        def run(*args):
            state, metrics = step(*args)
            calls.append(1)
            if len(calls) == call:
                state = state.replace(params={**state.params, "w": flipped(state.params["w"], bit, 1)})
            return state, metrics

        return run

    return wrap


@pytest.mark.parametrize("call", (6, 7))  # steps 0 to 4 are calls 1 to 5 and 2 for step 0: the two of step 4
def test_a_device_that_computes_wrongly_once_is_found_and_nothing_of_it_is_saved(tmp_path, call):
    run = Run(tmp_path, save_every=2, health=HealthConfig(verify_every=4))
    with pytest.raises(
        UserError, match="step 4 done twice gave different bits in state/params/w: a device computes wrongly"
    ):
        run.go(12, wrap=broken_once(call))
    assert max(run.saved()) == 4  # the state before that step
    healthy, whole = run.go(12), Run(tmp_path / "whole").go(12)
    np.testing.assert_array_equal(healthy.params["w"], whole.params["w"])


def test_a_wrong_bit_in_a_step_that_is_not_done_twice_goes_on_unseen(tmp_path):
    run = Run(tmp_path / "broken", health=HealthConfig(verify_every=100))
    got, want = run.go(8, wrap=broken_once(6, bit=30)), Run(tmp_path / "whole").go(8)
    assert not np.array_equal(got.params["w"], want.params["w"])


def test_a_healthy_run_that_verifies_has_the_bits_of_one_that_does_not_and_books_the_time(tmp_path):
    run = Run(tmp_path / "a", health=HealthConfig(verify_every=2))
    run.extra = {"ledger": goodput.Ledger(tmp_path / goodput.FILE)}
    got, want = run.go(8), Run(tmp_path / "b").go(8)
    np.testing.assert_array_equal(got.params["w"], want.params["w"])
    assert goodput.read(tmp_path / goodput.FILE).spent["verify"] > 0
