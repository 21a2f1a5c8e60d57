"""Halving and doubling the picture, each a learned branch plus a shortcut without parameters.

Time takes part only where the config says so and the tensor has more than one frame: an image stays one frame.
Source: Open-Sora opensora/models/dc_ae/models/{dc_ae.py,nn/ops.py}.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from osjax.models.dcae import chunks
from osjax.ops.resample import average_down, duplicate_up, nearest_up, shuffle, unshuffle

Triple = tuple[int, int, int]


def _factors(x_BTHWC: jax.Array, temporal: bool) -> tuple[int, int, int]:
    return (2 if temporal and x_BTHWC.shape[1] > 1 else 1), 2, 2


def _kernel(video: bool) -> tuple[int, int, int]:
    return (3 if video else 1), 3, 3


class Downsample(nn.Module):
    """kind `Conv` strides; `ConvPixelUnshuffle` convolves into fewer channels and unshuffles (images only).

    chunk: frames of a chunk of the input.
    """

    features: int
    kind: str
    shortcut: str | None
    video: bool
    temporal: bool = False
    dtype: jnp.dtype = jnp.float32
    chunk: int = 0

    @nn.compact
    def __call__(self, x_BTHWC: jax.Array) -> jax.Array:
        if self.kind == "Conv":
            # On one frame a temporal stride of two is no stride: the padding supplies both neighbours.
            stride = (2 if self.temporal else 1, 2, 2)
            y = self._conv(x_BTHWC, self.features, stride)
        else:
            y = unshuffle(self._conv(x_BTHWC, self.features // 4), (1, 2, 2))
        if self.shortcut is None:
            return y
        return y + average_down(x_BTHWC, self.features, _factors(x_BTHWC, self.temporal)).astype(y.dtype)

    def _conv(self, x_BTHWC: jax.Array, features: int, stride: Triple = (1, 1, 1)) -> jax.Array:
        how = {"dtype": self.dtype, "name": "conv"}
        return chunks.conv(self, x_BTHWC, self.chunk, features, _kernel(self.video), stride, **how)


class Upsample(nn.Module):
    """kind `InterpolateConv` repeats pixels and convolves; `ConvPixelShuffle` convolves and shuffles (images only).

    chunk: frames of a chunk of the output.
    """

    features: int
    kind: str
    shortcut: str | None
    video: bool
    temporal: bool = False
    dtype: jnp.dtype = jnp.float32
    chunk: int = 0

    @nn.compact
    def __call__(self, x_BTHWC: jax.Array) -> jax.Array:
        factors = _factors(x_BTHWC, self.temporal)
        if self.kind == "InterpolateConv":
            y = self._conv(nearest_up(x_BTHWC, factors), self.features)
        else:
            y = shuffle(self._conv(x_BTHWC, self.features * 4), (1, 2, 2))
        if self.shortcut is None:
            return y
        return y + duplicate_up(x_BTHWC, self.features, factors).astype(y.dtype)

    def _conv(self, x_BTHWC: jax.Array, features: int) -> jax.Array:
        kernel, how = _kernel(self.video), {"dtype": self.dtype, "name": "conv"}
        return chunks.conv(self, x_BTHWC, self.chunk, features, kernel, **how)
