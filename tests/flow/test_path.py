import jax
import jax.numpy as jnp
import numpy as np
import pytest

from osjax.flow import path, shift
from tests import golden


@pytest.mark.parametrize("name", ["train_inputs_causal", "train_inputs_uncausal_patch1", "train_inputs_image"])
def test_noised_tokens_and_target_match_the_original(name):
    arrays, meta = golden.read(name)
    data, noise, t = arrays["x_0_packed"], arrays["draw.x_1"], arrays["model_input.timesteps"]
    assert golden.relative_error(path.interpolate(data, noise, t), arrays["model_input.img"]) <= 1e-6
    assert golden.relative_error(path.velocity(data, noise), arrays["target"]) <= 1e-6
    assert golden.relative_error(path.interpolate(noise, data, t), arrays["model_input.img"]) > 1e-2
    assert golden.relative_error(noise + data, arrays["target"]) > 1e-2


@pytest.mark.parametrize(
    ("name", "latent"),
    [
        ("train_inputs_causal", (3, 2, 4)),
        ("train_inputs_uncausal_patch1", (2, 1, 1)),
        ("train_inputs_image", (1, 4, 2)),
    ],
)
def test_timesteps_of_a_batch_match_the_original(name, latent):
    arrays, _ = golden.read(name)
    t = path.shifted_logistic(arrays["draw.normal_for_t"], shift.training_alpha(*latent))
    assert golden.relative_error(t, arrays["model_input.timesteps"]) <= 1e-6
    t, y, x = latent
    other = path.shifted_logistic(arrays["draw.normal_for_t"], shift.training_alpha(t + 1, y, x))
    assert golden.relative_error(other, arrays["model_input.timesteps"]) > 1e-3


def test_path_runs_from_data_to_noise_with_the_target_as_slope():
    keys = jax.random.split(jax.random.key(0))
    data, noise = (jax.random.normal(k, (2, 3, 4, 4, 5)) for k in keys)
    at = lambda t: path.interpolate(data, noise, jnp.full((2,), t))  # noqa: E731
    np.testing.assert_allclose(at(1.0), noise, atol=1e-6)
    np.testing.assert_allclose(at(0.0), data, atol=1e-4)
    assert np.abs(at(0.0) - data).max() > 0  # sigma_min leaves a little noise
    np.testing.assert_allclose((at(0.75) - at(0.25)) / 0.5, path.velocity(data, noise), atol=1e-5)


def test_timestep_draw_follows_its_key_and_leans_to_noise_with_alpha():
    low = path.draw_timesteps(jax.random.key(0), 4096, 1.0)
    assert low.dtype == jnp.float32 and float(low.min()) > 0 and float(low.max()) < 1
    assert abs(float(jnp.median(low)) - 0.5) < 0.03
    assert float(jnp.median(path.draw_timesteps(jax.random.key(0), 4096, 3.0))) > 0.7
    assert np.array_equal(low, path.draw_timesteps(jax.random.key(0), 4096, 1.0))
    assert not np.array_equal(low, path.draw_timesteps(jax.random.key(1), 4096, 1.0))


def test_losses_match_the_original_with_and_without_frame_skipping():
    arrays, meta = golden.read("train_masked_loss")
    prediction, target = arrays["in.prediction"], arrays["in.target"]
    mask_BT = arrays["in.masks"][:, :, 0, 0]
    per_sample = path.frame_skipping_sample_losses(prediction, target, mask_BT)
    assert golden.relative_error(per_sample, meta["per_sample"]) <= 1e-5
    assert golden.relative_error(per_sample.mean(), meta["loss_masked"]) <= 1e-5
    plain = path.loss(prediction, target)
    assert golden.relative_error(plain, meta["loss_unmasked"]) <= 1e-5
    assert golden.relative_error(plain, meta["loss_masked"]) > 1e-3


def test_a_clip_that_is_given_in_full_adds_no_loss_and_finite_gradients():
    mask_BT = jnp.ones((1, 2))
    losses, target = path.frame_skipping_sample_losses, jnp.zeros((1, 4, 3))
    grad = jax.grad(lambda p: losses(p, target, mask_BT).sum())(jnp.ones((1, 4, 3)))
    assert not np.any(grad) and np.all(np.isfinite(grad))
    assert losses(jnp.ones((1, 4, 3)), target, jnp.zeros((1, 2))) == 1.0
