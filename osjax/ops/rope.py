"""Rotary positions over several axes (frame, row, column), in the half-rotation layout.

Dimension i rotates with dimension i + d/2. FLUX weights, which rotate neighbouring pairs, are permuted into this
layout when they are loaded (`osjax/weights`), so the model runs one kernel.
"""

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from osjax.ops.parameter import logical, parameter
from osjax.types import Axis


def angles(ids_BSA: jax.Array, axes_dim: Sequence[int], theta: float) -> jax.Array:
    """Rotation angles in radians, float32: positions (B, S, axes) -> (B, S, d / 2), axes side by side.

    axes_dim: dimensions of a head that rotate with each axis, d in all. theta: base of the frequencies, which are
    theta ** (-i / dim) for i = 0, 2, 4, ...
    float32 whatever the compute dtype: a bfloat16 angle is off by whole turns at long sequences.
    """
    parts = []
    for axis, dim in enumerate(axes_dim):
        frequency = np.asarray(1.0 / theta ** (np.arange(0, dim, 2, dtype=np.float64) / dim), np.float32)
        parts.append(ids_BSA[..., axis, None].astype(jnp.float32) * frequency.reshape(1, 1, -1))
    return jnp.concatenate(parts, -1)


def tables(angle_BSd: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cosines and signed sines (B, S, d), float32, of angles (B, S, d / 2): x becomes x * cos + swap(x) * sin."""
    cos, sin = jnp.cos(angle_BSd), jnp.sin(angle_BSd)
    return jnp.concatenate([cos, cos], -1), jnp.concatenate([-sin, sin], -1)


def swap(x: jax.Array) -> jax.Array:
    """The halves of the last axis, exchanged."""
    first, second = jnp.split(x, 2, -1)
    return jnp.concatenate([second, first], -1)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def norm_rotate(
    x_BShd: jax.Array, scale_d: jax.Array, cos_BSd: jax.Array, sin_BSd: jax.Array, eps: float = 1e-6
) -> jax.Array:
    """RMS norm of every head times `scale_d`, then the rotation of `tables`, float32 inside, in x's dtype outside.

    The halves of x itself are exchanged, not those of its float32 norm, because compilers put the result of an exchange
    into memory. The hand-written gradient keeps x alone. Positions get no gradient: nothing learns them.
    """
    return _norm_rotate_forward(x_BShd, scale_d, cos_BSd, sin_BSd, eps)[0]


def _norm_rotate_forward(x, scale, cos, sin, eps):
    x32, scale_d = x.astype(jnp.float32), scale.astype(jnp.float32)
    inverse_BSh1 = jax.lax.rsqrt(jnp.square(x32).mean(-1, keepdims=True) + eps)
    straight, crossed = (t[:, :, None] for t in (scale_d[None, None] * cos, swap(scale_d)[None, None] * sin))
    y = inverse_BSh1 * (x32 * straight + swap(x).astype(jnp.float32) * crossed)
    return y.astype(x.dtype), (x, scale, cos, sin)


def _norm_rotate_backward(eps, saved, dy):
    x, scale, cos, sin = saved
    x32 = x.astype(jnp.float32)
    inverse_BSh1 = jax.lax.rsqrt(jnp.square(x32).mean(-1, keepdims=True) + eps)
    normed = x32 * inverse_BSh1
    cos, sin = cos[:, :, None], sin[:, :, None]
    dscaled = dy.astype(jnp.float32) * cos - swap(dy).astype(jnp.float32) * sin
    dnormed = dscaled * scale.astype(jnp.float32)[None, None, None]
    dx = inverse_BSh1 * (dnormed - normed * (dnormed * normed).mean(-1, keepdims=True))
    return dx.astype(x.dtype), (dscaled * normed).sum((0, 1, 2)).astype(scale.dtype), None, None


norm_rotate.defvjp(_norm_rotate_forward, _norm_rotate_backward)


class RotaryNorm(nn.Module):
    """`norm_rotate` with its scale (d,): queries or keys (B, S, h, d) ready for attention."""

    @nn.compact
    def __call__(self, x_BShd: jax.Array, cos_BSd: jax.Array, sin_BSd: jax.Array) -> jax.Array:
        scale_d = parameter(self, "scale", logical(nn.initializers.ones, Axis.HEAD_DIM), (x_BShd.shape[-1],))
        return norm_rotate(x_BShd, scale_d, cos_BSd, sin_BSd)
