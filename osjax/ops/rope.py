"""Rotary positions over several axes (frame, row, column), in the half-rotation layout.

Dimension i rotates with dimension i + d/2. FLUX weights, which rotate neighbouring pairs, are permuted into this
layout when they are loaded (`weights/mmdit.py`), so the model runs one kernel.
"""

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from osjax.ops.layers import logical
from osjax.types import Axis


def angles(ids_BSA: jax.Array, axes_dim: Sequence[int], theta: float) -> jax.Array:
    """Rotation angles in radians, float32: positions (B, S, axes) -> (B, S, d / 2), axes side by side.

    float32 whatever the compute dtype: a bfloat16 angle is off by whole turns at long sequences.
    """
    parts = []
    for axis, dim in enumerate(axes_dim):
        frequency = np.asarray(1.0 / theta ** (np.arange(0, dim, 2, dtype=np.float64) / dim), np.float32)
        parts.append(ids_BSA[..., axis, None].astype(jnp.float32) * frequency.reshape(1, 1, -1))
    return jnp.concatenate(parts, -1)


def rotate(x_BShd: jax.Array, cos_BSd: jax.Array, sin_BSd: jax.Array) -> jax.Array:
    """Rotate dimension i with i + d/2 by the angle whose cosine and sine (B, S, d / 2) are given; float32 inside."""
    x1, x2 = jnp.split(x_BShd.astype(jnp.float32), 2, -1)
    cos, sin = cos_BSd[:, :, None], sin_BSd[:, :, None]
    return jnp.concatenate([x1 * cos - x2 * sin, x2 * cos + x1 * sin], -1).astype(x_BShd.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def norm_rotate(x_BShd: jax.Array, scale_d: jax.Array, cos_BSd: jax.Array, sin_BSd: jax.Array, eps: float = 1e-6):
    """RMS norm of every head times `scale_d`, then the rotation: one pass, float32 inside, x's dtype outside.

    The hand-written gradient keeps x and no float32 copy of it. Positions get none: nothing learns them.
    """
    return _norm_rotate_forward(x_BShd, scale_d, cos_BSd, sin_BSd, eps)[0]


def _normed(x_BShd, eps):
    x32 = x_BShd.astype(jnp.float32)
    inverse_BSh1 = jax.lax.rsqrt(jnp.square(x32).mean(-1, keepdims=True) + eps)
    return x32 * inverse_BSh1, inverse_BSh1


def _norm_rotate_forward(x, scale, cos, sin, eps):
    normed, _ = _normed(x, eps)
    y = rotate(normed * scale.astype(jnp.float32)[None, None, None], cos, sin)
    return y.astype(x.dtype), (x, scale, cos, sin)


def _norm_rotate_backward(eps, saved, dy):
    x, scale, cos, sin = saved
    normed, inverse_BSh1 = _normed(x, eps)
    dscaled = rotate(dy.astype(jnp.float32), cos, -sin)
    dnormed = dscaled * scale.astype(jnp.float32)[None, None, None]
    dx = inverse_BSh1 * (dnormed - normed * (dnormed * normed).mean(-1, keepdims=True))
    return dx.astype(x.dtype), (dscaled * normed).sum((0, 1, 2)).astype(scale.dtype), None, None


norm_rotate.defvjp(_norm_rotate_forward, _norm_rotate_backward)


class RotaryNorm(nn.Module):
    """`norm_rotate` with its scale (d,): queries or keys (B, S, h, d) ready for attention."""

    @nn.compact
    def __call__(self, x_BShd: jax.Array, cos_BSd: jax.Array, sin_BSd: jax.Array) -> jax.Array:
        scale_d = self.param("scale", logical(nn.initializers.ones, Axis.HEAD_DIM), (x_BShd.shape[-1],))
        return norm_rotate(x_BShd, scale_d, cos_BSd, sin_BSd)
