import jax
import jax.numpy as jnp
import numpy as np
import pytest

from osjax.flow import guidance, path, sampler, shift


def test_a_straight_path_is_followed_exactly_from_noise_to_data():
    data, noise = np.random.RandomState(0).standard_normal((2, 2, 6, 4)).astype(np.float32)
    velocity = path.velocity(data, noise)
    got = sampler.sample(lambda x, t, ways: velocity, jnp.asarray(noise), shift.schedule(7, 300, 3))
    np.testing.assert_allclose(got, data, atol=1e-4)
    away = sampler.sample(lambda x, t, ways: -velocity, jnp.asarray(noise), shift.schedule(7, 300, 3))
    assert np.abs(away - data).max() > 1


def reference_loop(velocity_fn, x, times, tables):
    """Every step with all three predictions."""
    for i, (t, after) in enumerate(zip(times[:-1], times[1:], strict=True)):
        predictions = np.split(np.asarray(velocity_fn(np.concatenate([x] * 3), np.full(6, t), 3)), 3)
        image = np.repeat(tables.image_ST[i], x.shape[1] // tables.image_ST.shape[1])[None, :, None]
        x = x + (after - t) * np.asarray(guidance.combine(tuple(predictions), tables.text_S[i], image))
    return x


OFFSETS = np.repeat(np.array([0.3, -1.0, 2.0], np.float32), 2)[:, None, None]


def velocity_fn(x, t_B, ways):
    assert x.shape[0] == t_B.shape[0] == 2 * ways
    return jnp.sin(3 * x) * OFFSETS[: x.shape[0]] + t_B[:, None, None]


def test_skipping_unused_predictions_gives_the_numbers_of_the_full_loop():
    x = np.random.RandomState(1).standard_normal((2, 12, 3)).astype(np.float32)
    times = shift.schedule(14, 300, 3)
    tables = guidance.weights(14, 3, 2.5, 2.0, text_oscillation=True, image_oscillation=True, image_ramp=True)
    assert set(tables.ways().tolist()) == {1, 3}
    run = jax.jit(lambda x: sampler.sample(velocity_fn, x, times, tables, keep_trajectory=True))
    got, trajectory = run(x)
    want = reference_loop(velocity_fn, x, times, tables)
    np.testing.assert_allclose(got, want, atol=1e-4)
    assert trajectory.shape == (15, 2, 12, 3)
    np.testing.assert_array_equal(trajectory[0], x)
    np.testing.assert_array_equal(trajectory[-1], got)
    unguided = sampler.sample(velocity_fn, jnp.asarray(x), times)
    assert np.abs(unguided - want).max() > 0.1


def test_latents_and_tokens_of_the_same_frames_are_guided_alike():
    x = np.random.RandomState(2).standard_normal((2, 3, 4, 2, 5)).astype(np.float32)
    times, tables = shift.schedule(4, 300, 3), guidance.weights(4, 3, 2.0, 3.0, image_ramp=True)

    def on_latents(rows, t, ways):
        flat = velocity_fn(rows.reshape(rows.shape[0], 24, 5), t, ways)
        return flat.reshape(rows.shape)

    latents = sampler.sample(on_latents, jnp.asarray(x), times, tables)
    tokens = sampler.sample(velocity_fn, jnp.asarray(x.reshape(2, 24, 5)), times, tables)
    np.testing.assert_allclose(latents.reshape(tokens.shape), tokens, atol=1e-5)


def test_tables_of_another_length_are_refused():
    x = jnp.zeros((2, 6, 4))
    with pytest.raises(ValueError, match="steps"):
        sampler.sample(velocity_fn, x, shift.schedule(4, 300, 3), guidance.weights(5, 3, 2.0))
    with pytest.raises(ValueError, match="frames"):
        sampler.sample(velocity_fn, x, shift.schedule(4, 300, 3), guidance.weights(4, 4, 2.0))


def test_the_state_stays_in_float32_when_the_model_computes_in_bfloat16():
    x = np.random.RandomState(3).standard_normal((2, 12, 3)).astype(np.float32)
    times, tables = shift.schedule(4, 300, 3), guidance.weights(4, 3, 2.0, 3.0)
    in_bfloat16 = lambda x, t, ways: velocity_fn(x.astype(jnp.bfloat16), t.astype(jnp.bfloat16), ways)  # noqa: E731
    low = sampler.sample(in_bfloat16, jnp.asarray(x), times, tables)
    high = sampler.sample(velocity_fn, jnp.asarray(x), times, tables)
    assert low.dtype == jnp.float32
    assert 0 < np.abs(low - high).max() < 0.5
