"""The train step of an autoencoder: L1 as the report has it (section 4.4), with an optional squared error."""

from collections.abc import Callable

import flax.linen as nn
import jax
import optax

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
) -> Callable[[TrainState, VideoBatch, jax.Array], tuple[TrainState, dict[str, jax.Array]]]:
    """The pure step `(state, batch, run_key) -> (state, metrics)` for a module whose call reconstructs its input.

    mse_weight: weight of the squared error beside L1. image_weight: weight of the same loss on one random frame of each
    clip, taken as an image, so that given first frames encode well too.
    """

    def reconstruction(params, video):
        got = module.apply({"params": params}, video)
        return ae_losses.l1(got, video) + mse_weight * ae_losses.mse(got, video)

    def loss_fn(params, batch, key):
        video = batch.video_BTHWC
        total = reconstruction(params, video)
        if image_weight:
            frame = jax.random.randint(key, (), 0, video.shape[1])
            total += image_weight * reconstruction(params, jax.lax.dynamic_slice_in_dim(video, frame, 1, axis=1))
        return total

    def step(state, batch, run_key):
        return update.apply(state, batch, jax.random.fold_in(run_key, state.step), loss_fn, tx, cfg)

    return step
