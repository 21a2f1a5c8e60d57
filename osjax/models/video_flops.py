"""The work of a video model: tokens and FLOPs of a batch, from shapes alone."""

from functools import lru_cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from osjax import models
from osjax.models import velocity
from osjax.ops import flops
from osjax.types import LatentBatch


def tokens(model_cfg: velocity.VideoConfig, batch: LatentBatch) -> int:
    """Video and text tokens of all clips of a batch (arrays or shapes), for a video model's configuration."""
    B, T, H, W, _ = batch.latents_BTHWC.shape
    return B * (model_cfg.inputs.tokens(T, H, W) + batch.txt_BMC.shape[1])


def forward_flops(model_cfg: velocity.VideoConfig, batch: LatentBatch) -> int:
    """FLOPs of the matrix products of one call of the model on the whole batch (arrays or shapes).

    model_cfg: of a video model. A training step counts three times as many, whatever is computed again.
    """
    rows, T, H, W, C = batch.latents_BTHWC.shape
    # Attention makes it a quadratic in the number of video tokens: three small videos tell it exactly.
    one, two, three = (_traced_flops(model_cfg.countable(), n, C, batch.txt_BMC.shape[1]) for n in (1, 2, 3))
    n = model_cfg.inputs.tokens(T, H, W) - 1
    return rows * (one + n * (two - one) + n * (n - 1) // 2 * (three - 2 * two + one))


@lru_cache
def _traced_flops(model_cfg: velocity.VideoConfig, frames: int, channels: int, text: int) -> int:
    """FLOPs of one clip of one token a frame."""
    params, patch = nn.unbox(models.abstract_params(model_cfg)), model_cfg.inputs.patch
    batch = velocity.batch_of(model_cfg, (frames, patch, patch, channels), 1, text, None)
    times = jax.ShapeDtypeStruct((1,), jnp.float32)
    return flops.of_program(partial(velocity.of_batch, models.build(model_cfg)), params, batch, times)
