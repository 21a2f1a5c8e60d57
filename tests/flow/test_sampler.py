import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from osjax.flow import guidance, path, sampler, shift, solvers
from tests.flow import integrate


def test_a_straight_path_is_followed_exactly_from_noise_to_data():
    data, noise = np.random.RandomState(0).standard_normal((2, 2, 6, 4)).astype(np.float32)
    velocity = path.velocity(data, noise)
    got = integrate.sample(lambda x, t, branch: velocity, jnp.asarray(noise), shift.schedule(7, 300, 3))
    np.testing.assert_allclose(got, data, atol=1e-4)
    away = integrate.sample(lambda x, t, branch: -velocity, jnp.asarray(noise), shift.schedule(7, 300, 3))
    assert np.abs(away - data).max() > 1


OFFSETS = np.array([0.3, -1.0, 2.0], np.float32)


def velocity_fn(x, t_B, branch):
    return jnp.sin(3 * x) * jnp.asarray(OFFSETS)[branch] + t_B.reshape(-1, *(1,) * (x.ndim - 1))


def reference_loop(x, times, tables):
    """Every step with all three predictions, in the original's order of sums."""
    for i, (t, after) in enumerate(zip(times[:-1], times[1:], strict=True)):
        full, given, free = (np.sin(3 * x) * offset + t for offset in OFFSETS)
        image = np.repeat(tables.image_ST[i], x.shape[1] // tables.image_ST.shape[1])[None, :, None]
        x = x + (after - t) * (free + image * (given - free) + tables.text_S[i] * (full - given))
    return x


def test_predictions_that_carry_no_weight_are_not_made_and_the_numbers_stay():
    x = np.random.RandomState(1).standard_normal((2, 12, 3)).astype(np.float32)
    times = shift.schedule(14, 300, 3)
    tables = guidance.weights(14, 3, 2.5, 2.0, text_oscillation=True, image_oscillation=True, image_ramp=True)
    made = []

    def counted(x, t_B, branch):
        jax.debug.callback(lambda b: made.append(int(b)), branch)
        return velocity_fn(x, t_B, branch)

    got = integrate.sample(counted, x, times, tables)
    jax.effects_barrier()
    assert len(made) == 12 * 3 + 2 and made.count(0) == 14 and made.count(2) == 12
    want = reference_loop(x, times, tables)
    np.testing.assert_allclose(got, want, atol=1e-4)
    unguided = integrate.sample(velocity_fn, jnp.asarray(x), times)
    assert np.abs(unguided - want).max() > 0.1


def test_fifty_steps_with_the_usual_oscillation_are_110_calls():
    times = shift.schedule(50, 240, 33)
    usual = {"text_oscillation": True, "image_oscillation": True, "image_ramp": True}
    _, ends = sampler.plan(times, guidance.weights(50, 33, 7.5, 3.0, **usual))
    assert ends[-1] == 110 and len(ends) == 50
    assert sampler.plan(times, guidance.weights(50, 33, 7.5, 3.0))[1][-1] == 150
    assert sampler.plan(times, guidance.weights(50, 33, 7.5))[1][-1] == 100
    assert sampler.plan(times)[1][-1] == 50


@pytest.mark.parametrize("solver", solvers.SOLVERS)
def test_a_run_in_pieces_is_the_run_in_one_bit_for_bit(solver):
    x = sampler.start(jnp.asarray(np.random.RandomState(4).standard_normal((1, 12, 3)).astype(np.float32)))
    weights = guidance.weights(6, 3, 2.5, 2.0, image_ramp=True)
    calls, ends = sampler.plan(shift.schedule(6, 300, 3), weights, solver)
    run = jax.jit(lambda state, first, last: integrate.advance(velocity_fn, state, calls, first, last))
    whole, piece = run(x, 0, ends[-1]), x
    for first, last in zip([0, *ends[:-1]], ends, strict=True):
        piece = run(piece, first, last)
    np.testing.assert_array_equal(piece.x, whole.x)
    assert np.abs(run(x, 0, ends[-2]).x - whole.x).max() > 1e-3


def test_more_steps_other_weights_or_another_solver_need_no_new_program():
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(x, calls, last):
        return integrate.advance(velocity_fn, sampler.start(x), calls, 0, last).x

    x = jnp.ones((1, 6, 2))
    results = []
    for steps, text, solver in ((4, 2.0, "euler"), (20, 2.0, "euler"), (20, 5.0, "euler"), (20, 5.0, "unipc")):
        calls, ends = sampler.plan(shift.schedule(steps, 300, 3), guidance.weights(steps, 3, text), solver)
        results.append(run(x, calls, ends[-1]))
    assert len({float(r.sum()) for r in results}) == 4
    with pytest.raises(AssertionError, match="traced > 1 times"):
        run(jnp.ones((1, 9, 2)), calls, ends[-1])  # another size does


def test_latents_and_tokens_of_the_same_frames_are_guided_alike():
    x = np.random.RandomState(2).standard_normal((2, 3, 4, 2, 5)).astype(np.float32)
    times, tables = shift.schedule(4, 300, 3), guidance.weights(4, 3, 2.0, 3.0, image_ramp=True)

    latents = integrate.sample(velocity_fn, jnp.asarray(x), times, tables)
    tokens = integrate.sample(velocity_fn, jnp.asarray(x.reshape(2, 24, 5)), times, tables)
    np.testing.assert_allclose(latents.reshape(tokens.shape), tokens, atol=1e-5)


def test_tables_of_another_length_are_refused():
    x = jnp.zeros((2, 6, 4))
    with pytest.raises(ValueError, match="steps"):
        integrate.sample(velocity_fn, x, shift.schedule(4, 300, 3), guidance.weights(5, 3, 2.0))
    with pytest.raises(ValueError, match="frames"):
        integrate.sample(velocity_fn, x, shift.schedule(4, 300, 3), guidance.weights(4, 4, 2.0))


def test_the_state_stays_in_float32_when_the_model_computes_in_bfloat16():
    x = np.random.RandomState(3).standard_normal((2, 12, 3)).astype(np.float32)
    times, tables = shift.schedule(4, 300, 3), guidance.weights(4, 3, 2.0, 3.0)
    in_bfloat16 = lambda x, t, branch: velocity_fn(x.astype(jnp.bfloat16), t.astype(jnp.bfloat16), branch)  # noqa: E731
    low = integrate.sample(in_bfloat16, jnp.asarray(x), times, tables)
    high = integrate.sample(velocity_fn, jnp.asarray(x), times, tables)
    assert low.dtype == jnp.float32
    assert 0 < np.abs(low - high).max() < 0.5
