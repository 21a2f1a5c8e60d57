"""Losses of autoencoders and of the discriminator beside them, float32.

`l1` and `mse` are means over every pixel value. `nll` and what follows keep the original's scale, on which its
weights and the adaptive weight stand: sums over all values of a frame, means over frames.

Source: Open-Sora opensora/models/vae/losses.py.
"""

import jax
import jax.numpy as jnp
import optax

LARGEST_WEIGHT = 1e4


def l1(got: jax.Array, want: jax.Array) -> jax.Array:
    """Mean absolute error of two arrays of one shape, such as a reconstruction and its clip: float32 scalar."""
    return jnp.abs(got.astype(jnp.float32) - want.astype(jnp.float32)).mean()


def mse(got: jax.Array, want: jax.Array) -> jax.Array:
    """Mean squared error of two arrays of one shape: float32 scalar."""
    return jnp.square(got.astype(jnp.float32) - want.astype(jnp.float32)).mean()


def edges(got: jax.Array, want: jax.Array) -> jax.Array:
    """Mean absolute error of the differences between neighbours in a row and in a column: float32 scalar.

    got, want: videos (B, T, H, W, C) of one shape. Soft edges cost little of `l1`, as few pixels lie on them; here they
    cost what their steps are short of. Source: Mathieu et al. 2016, "Deep multi-scale video prediction beyond mean
    square error", section 3.3, with an exponent of 1.
    """
    error = got.astype(jnp.float32) - want.astype(jnp.float32)
    return (jnp.abs(jnp.diff(error, axis=2)).mean() + jnp.abs(jnp.diff(error, axis=3)).mean()) / 2


def values_per_frame(video_BTHWC: jax.Array) -> int:
    """Number of values of one frame, H * W * C: a mean over the video's pixel values times it is a sum over a frame."""
    return video_BTHWC[0, 0].size


def nll(l1: jax.Array, distance: jax.Array, values: int, perceptual_weight: float, log_variance: float = 0.0):
    """Negative log likelihood of a frame under a Laplace-like density: float32 scalar.

    l1: mean error over pixel values. distance: mean LPIPS. values: number of values of one frame. log_variance: of a
    pixel value. The original adds a frame's distance, times perceptual_weight, to each of its pixel values before it
    sums them, so that L1 and distance weigh as in the report: L1 + 0.5 LPIPS.
    """
    error = (l1 + perceptual_weight * distance) * values
    return error / jnp.exp(log_variance) + log_variance * values


def generator(fake_logits: jax.Array) -> jax.Array:
    """The autoencoder's loss: minus the mean of the logits (any shape) that the discriminator gives reconstructions."""
    return -fake_logits.mean()


def hinge(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """Hinge loss of telling real patches from reconstructed ones, by their logits (any shape): float32 scalar."""
    return 0.5 * (jax.nn.relu(1 - real_logits).mean() + jax.nn.relu(1 + fake_logits).mean())


def vanilla(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """Cross entropy of telling real patches from reconstructed ones, by their logits (any shape): float32 scalar."""
    real = optax.sigmoid_binary_cross_entropy(real_logits, jnp.ones_like(real_logits))
    fake = optax.sigmoid_binary_cross_entropy(fake_logits, jnp.zeros_like(fake_logits))
    return 0.5 * (real.mean() + fake.mean())


def wasserstein(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """Half the distance of the mean logits (any shape) of reconstructed and real patches; no gradient penalty."""
    return 0.5 * (fake_logits.mean() - real_logits.mean())


DISCRIMINATOR = {"hinge": hinge, "vanilla": vanilla, "wgan-gp": wasserstein}  # the original's names


def lecam(real: jax.Array, fake: jax.Array, past_real: jax.Array, past_fake: jax.Array) -> jax.Array:
    """Regulariser that keeps a discriminator of little data from running away: mean logits against moving averages.

    real, fake: mean logits of this batch. past_real, past_fake: their moving averages. All are scalars.
    Source: Tseng et al. 2021, "Regularizing Generative Adversarial Networks under Limited Data".
    """
    return jnp.square(jax.nn.relu(real - past_fake)) + jnp.square(jax.nn.relu(past_real - fake))


def adaptive_weight(nll_gradient: jax.Array, generator_gradient: jax.Array) -> jax.Array:
    """The weight with which the generator loss pulls on the last layer as hard as the reconstruction does.

    nll_gradient, generator_gradient: of the two losses with respect to that layer's kernel. A scalar from 0 to
    LARGEST_WEIGHT, through which no gradient flows.
    """
    ratio = jnp.linalg.norm(nll_gradient.ravel()) / (jnp.linalg.norm(generator_gradient.ravel()) + 1e-4)
    return jax.lax.stop_gradient(jnp.clip(ratio, 0.0, LARGEST_WEIGHT))


def from_step(start: int, step: jax.Array) -> jax.Array:
    """1 where `step`, an update counted from 0, is `start` or later, and 0 before: float32 scalar."""
    return jnp.where(step < start, 0.0, 1.0)
