"""The straight path between data and noise, and the loss of a model that follows it.

    x_t = (1 - t) x_0 + (1 - (1 - s) (1 - t)) x_1,    v = (1 - s) x_1 - x_0,    s = SIGMA_MIN

data:      x_0, latents or tokens of clips, rows first.
noise:     x_1, standard normal, in the shape of the data.
sigma_min: s, the noise that is left on the data at t = 0.

t = 1 is noise x_1, t = 0 is data x_0. Everything here works on tokens (B, N, C) and on latents (B, T, H, W, C) alike.
Source: Open-Sora scripts/diffusion/train.py and opensora/utils/train.py; Movie Gen (Polyak et al. 2024), section 3.1.2.
"""

import jax
import jax.numpy as jnp

from osjax.flow.shift import time_shift

SIGMA_MIN = 1e-5  # noise left on the data at t = 0


def _per_sample(values_B: jax.Array, like: jax.Array) -> jax.Array:
    """(B,) -> (B, 1, ..., 1) with as many axes as `like`."""
    return values_B.reshape(-1, *(1,) * (like.ndim - 1))


def interpolate(data: jax.Array, noise: jax.Array, t_B: jax.Array, sigma_min: float = SIGMA_MIN) -> jax.Array:
    """The point x_t on the path of each sample."""
    back = _per_sample(1 - t_B, data)
    return back * data + (1 - (1 - sigma_min) * back) * noise


def velocity(data: jax.Array, noise: jax.Array, sigma_min: float = SIGMA_MIN) -> jax.Array:
    """The target dx_t/dt, constant along the path."""
    return (1 - sigma_min) * noise - data


def shifted_logistic(normal_B: jax.Array, alpha: float) -> jax.Array:
    """Standard normal draws -> timesteps in (0, 1)."""
    return time_shift(jax.nn.sigmoid(normal_B), alpha)


def draw_timesteps(key: jax.Array, B: int, alpha: float) -> jax.Array:
    """Shifted logit-normal timesteps: (B,) float32. alpha: `shift.training_alpha` of the latent."""
    return shifted_logistic(jax.random.normal(key, (B,), jnp.float32), alpha)


def draw_noise(key: jax.Array, like: jax.Array) -> jax.Array:
    """Gaussian noise of the shape of `like`, drawn in float32."""
    return jax.random.normal(key, like.shape, jnp.float32)


def sample_losses(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Mean squared error of every sample: (B,) float32."""
    error = prediction.astype(jnp.float32) - target.astype(jnp.float32)
    return jnp.mean(error * error, axis=tuple(range(1, error.ndim)))


def loss(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Mean squared error over everything: scalar float32."""
    return jnp.mean(sample_losses(prediction, target))


def kept_frames(mask_BT: jax.Array) -> jax.Array:
    """1 for the latent frames that count in the frame-skipping loss, 0 for a lone conditioned first or last frame.

    Clips with any conditioned frame between the two ends (the v2v modes) count in full, as in the original.
    """
    image_only_B = jnp.logical_not(jnp.any(mask_BT[:, 1:-1] == 1, axis=1))
    frames = jnp.arange(mask_BT.shape[1])[None]
    at_end = jnp.logical_or(frames == 0, frames == mask_BT.shape[1] - 1)
    skipped = image_only_B[:, None] & at_end & (mask_BT == 1)
    return jnp.logical_not(skipped).astype(jnp.float32)


def frame_skipping_sample_losses(prediction: jax.Array, target: jax.Array, mask_BT: jax.Array) -> jax.Array:
    """Mean squared error of every sample over `kept_frames`: (B,) float32.

    prediction, target: tokens or latents, frames outermost after the batch. A clip whose frames are all given has
    nothing to learn and counts 0 (where the original divides by zero).
    """
    B, T = mask_BT.shape
    error = (prediction.astype(jnp.float32) - target.astype(jnp.float32)).reshape(B, T, -1)
    kept_BT = kept_frames(mask_BT)
    frame_losses_BT = jnp.mean(error * error, axis=-1)
    return jnp.sum(frame_losses_BT * kept_BT, axis=1) / jnp.maximum(jnp.sum(kept_BT, axis=1), 1.0)
