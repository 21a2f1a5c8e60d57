"""Halving and doubling the picture, each a learned branch plus a shortcut without parameters.

Time takes part only where the config says so and the tensor has more than one frame: an image stays one frame.
Source: Open-Sora opensora/models/dc_ae/models/{dc_ae.py,nn/ops.py}.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from osjax.ops.conv import Conv3d
from osjax.ops.resample import average_down, duplicate_up, nearest_up, shuffle, unshuffle


def _factors(x_BTHWC: jax.Array, temporal: bool) -> tuple[int, int, int]:
    return (2 if temporal and x_BTHWC.shape[1] > 1 else 1), 2, 2


def _kernel(video: bool) -> tuple[int, int, int]:
    return (3 if video else 1), 3, 3


class Downsample(nn.Module):
    """kind `Conv` strides; `ConvPixelUnshuffle` convolves into fewer channels and unshuffles (images only)."""

    features: int
    kind: str
    shortcut: str | None
    video: bool
    temporal: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BTHWC: jax.Array) -> jax.Array:
        if self.kind == "Conv":
            # On one frame a temporal stride of two is no stride: the padding supplies both neighbours.
            stride = (2 if self.temporal else 1, 2, 2)
            y = Conv3d(self.features, _kernel(self.video), stride, dtype=self.dtype, name="conv")(x_BTHWC)
        else:
            y = Conv3d(self.features // 4, _kernel(self.video), dtype=self.dtype, name="conv")(x_BTHWC)
            y = unshuffle(y, (1, 2, 2))
        if self.shortcut is None:
            return y
        return y + average_down(x_BTHWC, self.features, _factors(x_BTHWC, self.temporal)).astype(y.dtype)


class Upsample(nn.Module):
    """kind `InterpolateConv` repeats pixels and convolves; `ConvPixelShuffle` convolves and shuffles (images only)."""

    features: int
    kind: str
    shortcut: str | None
    video: bool
    temporal: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BTHWC: jax.Array) -> jax.Array:
        factors = _factors(x_BTHWC, self.temporal)
        if self.kind == "InterpolateConv":
            y = nearest_up(x_BTHWC, factors)
            y = Conv3d(self.features, _kernel(self.video), dtype=self.dtype, name="conv")(y)
        else:
            y = Conv3d(self.features * 4, _kernel(self.video), dtype=self.dtype, name="conv")(x_BTHWC)
            y = shuffle(y, (1, 2, 2))
        if self.shortcut is None:
            return y
        return y + duplicate_up(x_BTHWC, self.features, factors).astype(y.dtype)
