"""LPIPS, the learned perceptual distance of two images: weighted differences of VGG16 features.

The weights come from the user's files (`weights/lpips.py`); a distance by fresh parameters means nothing.
Source: Open-Sora opensora/models/vae/lpips.py; Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features".
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from osjax.errors import UserError
from osjax.ops.conv import Conv3d
from osjax.ops.parameter import logical, parameter
from osjax.types import Axis

CONVS = (2, 2, 3, 3, 3)  # convolutions between two poolings of VGG16
EPS = 1e-10
SHIFT = (-0.030, -0.088, -0.188)  # pixels in [-1, 1] to the statistics that VGG16 was trained with
SCALE = (0.458, 0.448, 0.450)
SMALLEST = 2 ** (len(CONVS) - 1)  # pixels that leave one feature behind the last pooling


@dataclass(frozen=True)
class LPIPSConfig:
    """Sizes of the features. chns: channels of their five levels, those of VGG16 (the original's name)."""

    chns: tuple[int, ...] = (64, 128, 256, 512, 512)

    def __post_init__(self):
        object.__setattr__(self, "chns", tuple(self.chns))
        if len(self.chns) != len(CONVS):
            raise UserError(f"lpips chns has {len(self.chns)} entries: give one for each of the {len(CONVS)} levels")


class Level(nn.Module):
    """Convolutions and ReLUs of one level, on images (B, T, H, W, C), after a pooling by two where `pool`."""

    features: int
    convs: int
    pool: bool
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BTHWC: jax.Array) -> jax.Array:
        x = _pool(x_BTHWC) if self.pool else x_BTHWC
        for n in range(self.convs):
            # One frame at a time, so the form with stacked taps is a plain 2D convolution.
            x = nn.relu(Conv3d(self.features, (1, 3, 3), dtype=self.dtype, impl="taps", name=f"conv{n}")(x))
        return x


def _pool(x_BTHWC: jax.Array) -> jax.Array:
    """Largest of each 2x2 pixels; an odd last row or column is left out."""
    B, T, H, W, C = x_BTHWC.shape
    x = x_BTHWC[:, :, : H // 2 * 2, : W // 2 * 2]
    return x.reshape(B, T, H // 2, 2, W // 2, 2, C).max((3, 5))


class LPIPS(nn.Module):
    """`apply({"params": p}, a_BTHWC, b_BTHWC)` -> distance of each pair of frames (B, T), float32; pixels in [-1, 1].

    `method="layers"` gives its five terms, (B, T, 5). UserError for images under 16 pixels.
    dtype: of the features; distances are float32. remat: recompute each level in the backward pass.
    """

    cfg: LPIPSConfig
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    def __call__(self, a_BTHWC: jax.Array, b_BTHWC: jax.Array) -> jax.Array:
        return self.layers(a_BTHWC, b_BTHWC).sum(-1)

    @nn.compact
    def layers(self, a_BTHWC: jax.Array, b_BTHWC: jax.Array) -> jax.Array:
        """The terms of the distance of two clips, one for each level; UserError for pictures that are too small."""
        if min(a_BTHWC.shape[2:4]) < SMALLEST:
            raise UserError(f"LPIPS of {a_BTHWC.shape[2]}x{a_BTHWC.shape[3]} pixels: it needs {SMALLEST} or more")
        shift = parameter(self, "shift", logical(_constant(SHIFT), Axis.CONV_IN), (3,)).reshape(1, 1, 1, 1, -1)
        scale = parameter(self, "scale", logical(_constant(SCALE), Axis.CONV_IN), (3,)).reshape(1, 1, 1, 1, -1)
        a, b = (x.astype(jnp.float32) * (1 / scale) - shift / scale for x in (a_BTHWC, b_BTHWC))
        level = nn.remat(Level) if self.remat else Level
        terms = []
        for n, width in enumerate(self.cfg.chns):
            features = level(width, CONVS[n], n > 0, self.dtype, name=f"level{n}")
            a, b = features(a), features(b)
            head = parameter(self, f"head{n}", logical(nn.initializers.constant(1 / width), Axis.NORM), (width,))
            terms.append((jnp.square(_directions(a) - _directions(b)).mean((2, 3)) * head.reshape(1, 1, -1)).sum(-1))
        return jnp.stack(terms, -1)


def _constant(values: tuple[float, ...]):
    return lambda key, shape: jnp.array(values)


def _directions(x_BTHWC: jax.Array) -> jax.Array:
    """Features divided by their length over channels. Where all are zero so are value and gradient, never NaN."""
    x = x_BTHWC.astype(jnp.float32)
    squares = jnp.square(x).sum(-1, keepdims=True)
    length = jnp.sqrt(jnp.where(squares > 0, squares, 1.0))  # the root's gradient at 0 is infinite
    return jnp.where(squares > 0, x / (length + EPS), 0.0)


def example_inputs(cfg: LPIPSConfig) -> tuple[jax.Array, jax.Array]:
    """The smallest pair of images that `init` takes."""
    image = jnp.zeros((1, 1, SMALLEST, SMALLEST, 3))
    return image, image
