"""The reconstruction phase of an autoencoder: L1 + LPIPS as the report has it (section 4.4), or a squared error.

The adversarial phase that may follow is `training/gan.py`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import optax

from osjax.errors import UserError
from osjax.training import ae_losses, update
from osjax.training import state as states
from osjax.training.freeze import Freeze
from osjax.training.optimizer import OptimizerConfig
from osjax.training.state import TrainState
from osjax.types import VideoBatch


class AutoencoderState(TrainState):
    """perceptual: the parameters of LPIPS, which stay as they are, or None.

    They are part of the state, so that they are sharded like all else and a run goes on without the user's file.
    """

    perceptual: Any = None


def create(
    init_params: Callable[[], Any],
    tx: optax.GradientTransformation,
    with_ema: bool,
    freeze: Freeze = states.EVERYTHING,
    perceptual: Any = None,
) -> AutoencoderState:
    """Fresh state. Trace it; boxes pass through."""
    start = states.create(init_params, tx, with_ema, freeze)
    return AutoencoderState(**vars(start), perceptual=perceptual)


def make_step(
    module: nn.Module,
    tx: optax.GradientTransformation,
    cfg: OptimizerConfig,
    mse_weight: float = 0.0,
    image_weight: float = 0.0,
    crop: int = 0,
    perceptual_weight: float = 0.0,
    lpips: nn.Module | None = None,
) -> Callable[[AutoencoderState, VideoBatch, jax.Array], tuple[AutoencoderState, dict[str, jax.Array]]]:
    """The pure step `(state, batch, run_key) -> (state, metrics)` for a module whose call reconstructs its input.

    mse_weight, perceptual_weight: of the squared error and of LPIPS beside L1. image_weight: weight of the same loss on
    one random frame of each clip, taken as an image, so that given first frames encode well too. crop: side in pixels
    of a square cut at random from the clips, the same for the whole batch; 0 takes them whole. The model is
    convolutional, so small cuts teach it as much per pixel and cost less.
    """

    def reconstruction(params, perceptual, video):
        got = module.apply({"params": params}, video)
        total = ae_losses.l1(got, video) + mse_weight * ae_losses.mse(got, video)
        if perceptual_weight:
            total += perceptual_weight * lpips.apply({"params": perceptual}, video, got).mean()
        return total

    def loss_fn(perceptual, params, batch, key):
        key_crop, key_frame = jax.random.split(key)
        video = random_crop(batch.video_BTHWC, crop, key_crop)
        total = reconstruction(params, perceptual, video)
        if image_weight:
            frame = jax.random.randint(key_frame, (), 0, video.shape[1])
            image = jax.lax.dynamic_slice_in_dim(video, frame, 1, axis=1)
            total += image_weight * reconstruction(params, perceptual, image)
        return total

    def step(state, batch, run_key):
        key = jax.random.fold_in(run_key, state.step)
        after, metrics = update.apply(state, batch, key, partial(loss_fn, state.perceptual), tx, cfg)
        return state.replace(**vars(after)), metrics

    return step


def random_crop(video_BTHWC: jax.Array, side: int, key: jax.Array) -> jax.Array:
    """A square of `side` pixels of every clip, at one random place for all; 0 takes them whole."""
    if not side:
        return video_BTHWC
    B, T, H, W, C = video_BTHWC.shape
    if side > min(H, W):
        raise UserError(f"a crop of {side} does not fit clips of {H}x{W}: use at most {min(H, W)}")
    top, left = (jax.random.randint(k, (), 0, n - side + 1) for k, n in zip(jax.random.split(key), (H, W), strict=True))
    return jax.lax.dynamic_slice(video_BTHWC, (0, 0, top, left, 0), (B, T, side, side, C))
