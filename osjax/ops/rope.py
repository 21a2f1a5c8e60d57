"""Rotary positions over several axes (frame, row, column), in the half-rotation layout.

Dimension i rotates with dimension i + d/2. FLUX weights, which rotate neighbouring pairs, are permuted into this
layout when they are loaded (`weights/mmdit.py`), so the model runs one kernel.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


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
