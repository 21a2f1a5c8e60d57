"""Moving pixels between space-time and channels, and nearest-neighbour enlargement, over (B, T, H, W, C).

The channel order is the original's: channel first, then the position (t, h, w) inside the cell, so that weights and
latents made by it keep their meaning. Source: Open-Sora opensora/models/dc_ae/models/nn (pixel shuffles and shortcuts).
"""

import jax
import jax.numpy as jnp

Triple = tuple[int, int, int]


def unshuffle(x_BTHWC: jax.Array, factors: Triple) -> jax.Array:
    """(B, T, H, W, C) -> (B, T/ft, H/fh, W/fw, C * ft * fh * fw). Each factor must divide its dimension."""
    B, T, H, W, C = x_BTHWC.shape
    ft, fh, fw = factors
    cells = x_BTHWC.reshape(B, T // ft, ft, H // fh, fh, W // fw, fw, C)
    return cells.transpose(0, 1, 3, 5, 7, 2, 4, 6).reshape(B, T // ft, H // fh, W // fw, C * ft * fh * fw)


def shuffle(x_BTHWC: jax.Array, factors: Triple) -> jax.Array:
    """(B, T, H, W, C) -> (B, T*ft, H*fh, W*fw, C / (ft * fh * fw)), the inverse of `unshuffle`."""
    B, T, H, W, C = x_BTHWC.shape
    ft, fh, fw = factors
    features = C // (ft * fh * fw)
    cells = x_BTHWC.reshape(B, T, H, W, features, ft, fh, fw)
    return cells.transpose(0, 1, 5, 2, 6, 3, 7, 4).reshape(B, T * ft, H * fh, W * fw, features)


def average_down(x_BTHWC: jax.Array, features: int, factors: Triple) -> jax.Array:
    """Unshuffle, then average runs of neighbouring channels until `features` are left. factors: of T, H, W."""
    x = unshuffle(x_BTHWC, factors)
    *lead, C = x.shape
    if C % features:
        raise ValueError(f"{C} unshuffled channels do not average into {features}")
    return x.reshape(*lead, features, C // features).mean(-1)


def duplicate_up(x_BTHWC: jax.Array, features: int, factors: Triple) -> jax.Array:
    """Repeat each channel as often as it takes, then shuffle into `features` channels. factors: of T, H, W."""
    wanted = features * factors[0] * factors[1] * factors[2]
    if wanted % x_BTHWC.shape[-1]:
        raise ValueError(f"{x_BTHWC.shape[-1]} channels do not repeat into {wanted}")
    return shuffle(jnp.repeat(x_BTHWC, wanted // x_BTHWC.shape[-1], axis=-1), factors)


def nearest_up(x_BTHWC: jax.Array, factors: Triple) -> jax.Array:
    """Repeat every pixel `factors` times along T, H and W."""
    B, T, H, W, C = x_BTHWC.shape
    ft, fh, fw = factors
    cells = jnp.broadcast_to(x_BTHWC.reshape(B, T, 1, H, 1, W, 1, C), (B, T, ft, H, fh, W, fw, C))
    return cells.reshape(B, T * ft, H * fh, W * fw, C)
