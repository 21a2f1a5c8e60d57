"""The train step of an autoencoder: L1 as the report has it (section 4.4), with an optional squared error."""

from collections.abc import Callable

import flax.linen as nn
import jax
import optax

from osjax.errors import UserError
from osjax.training import ae_losses, update
from osjax.training.optimizer import OptimizerConfig
from osjax.training.state import TrainState
from osjax.types import VideoBatch


def make_step(
    module: nn.Module,
    tx: optax.GradientTransformation,
    cfg: OptimizerConfig,
    mse_weight: float = 0.0,
    image_weight: float = 0.0,
    crop: int = 0,
) -> Callable[[TrainState, VideoBatch, jax.Array], tuple[TrainState, dict[str, jax.Array]]]:
    """The pure step `(state, batch, run_key) -> (state, metrics)` for a module whose call reconstructs its input.

    mse_weight: weight of the squared error beside L1. image_weight: weight of the same loss on one random frame of each
    clip, taken as an image, so that given first frames encode well too. crop: side in pixels of a square cut at random
    from the clips, the same for the whole batch; 0 takes them whole. The model is convolutional, so small cuts teach it
    as much per pixel and cost less.
    """

    def reconstruction(params, video):
        got = module.apply({"params": params}, video)
        return ae_losses.l1(got, video) + mse_weight * ae_losses.mse(got, video)

    def loss_fn(params, batch, key):
        key_crop, key_frame = jax.random.split(key)
        video = _random_crop(batch.video_BTHWC, crop, key_crop) if crop else batch.video_BTHWC
        total = reconstruction(params, video)
        if image_weight:
            frame = jax.random.randint(key_frame, (), 0, video.shape[1])
            total += image_weight * reconstruction(params, jax.lax.dynamic_slice_in_dim(video, frame, 1, axis=1))
        return total

    def step(state, batch, run_key):
        return update.apply(state, batch, jax.random.fold_in(run_key, state.step), loss_fn, tx, cfg)

    return step


def _random_crop(video_BTHWC: jax.Array, side: int, key: jax.Array) -> jax.Array:
    B, T, H, W, C = video_BTHWC.shape
    if side > min(H, W):
        raise UserError(f"a crop of {side} does not fit clips of {H}x{W}: use at most {min(H, W)}")
    top, left = (jax.random.randint(k, (), 0, n - side + 1) for k, n in zip(jax.random.split(key), (H, W), strict=True))
    return jax.lax.dynamic_slice(video_BTHWC, (0, 0, top, left, 0), (B, T, side, side, C))
