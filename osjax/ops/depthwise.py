"""Depthwise convolution of stride one: every channel by itself, as a sum of shifted products.

XLA's CPU backend has no fast form of its own for it, and above all none for the gradients.
"""

from collections.abc import Sequence
from functools import partial
from itertools import product as every

import jax
import jax.numpy as jnp
from jax import lax

Padding = Sequence[tuple[int, int]]
UNROLLED = 27  # taps in one pass


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(x_BTHWC: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    """x (B, T, H, W, C), kernel (kt, kh, kw, 1, C) -> (B, T', H', W', C), in x's dtype, summed in float32.

    padding: zeros before and behind along T, H and W.
    Frame by frame, which stay in the cache, with UNROLLED taps at most in one pass: all 125 of a 5x5x5 kernel would
    take XLA many seconds to compile, and run slower than in five passes.
    """
    x, (T, H, W) = _pad(x_BTHWC, kernel, padding)
    kt, kh, kw = kernel.shape[:3]
    kernel = kernel.astype(jnp.float32)
    at_once = max(n for n in range(1, kt + 1) if kt % n == 0 and (n == 1 or n * kh * kw <= UNROLLED))

    def frame(t):
        def add_taps(total, first):
            seen = lax.dynamic_slice_in_dim(x, t + first, at_once, axis=1)
            taps = lax.dynamic_slice_in_dim(kernel, first, at_once, axis=0)
            for i, dh, dw in every(range(at_once), range(kh), range(kw)):
                total = total + seen[:, i, dh : dh + H, dw : dw + W] * taps[i, dh, dw].reshape(1, 1, 1, -1)
            return total, None

        total = jnp.zeros((x.shape[0], H, W, x.shape[-1]), jnp.float32)
        return lax.scan(add_taps, total, jnp.arange(0, kt, at_once))[0].astype(x.dtype)

    return jnp.moveaxis(lax.map(frame, jnp.arange(T)), 0, 1)


def _forward(x, kernel, padding):
    return conv(x, kernel, padding), (x, kernel)


def _backward(padding, saved, dy):
    """Hand-written because autodiff would keep one copy of the input per tap."""
    x, kernel = saved
    mirrored = tuple((k - 1 - before, k - 1 - after) for k, (before, after) in zip(kernel.shape, padding, strict=False))
    dx = conv(dy, kernel[::-1, ::-1, ::-1], mirrored)
    x, size = _pad(x, kernel, padding)

    def row_of_taps(_, tap):
        windows = _windows(x, size, tap, kernel.shape[2])
        wide = {"preferred_element_type": jnp.float32}
        return None, jnp.stack([jnp.einsum("bthwc,bthwc->c", rows, dy, **wide) for rows in windows])

    rows = lax.scan(row_of_taps, None, _taps_of_time_and_height(kernel))[1]
    return dx, rows.reshape(kernel.shape).astype(kernel.dtype)


conv.defvjp(_forward, _backward)


def _pad(x, kernel, padding):
    """x with its zeros, and the size (T, H, W) of the convolution's output."""
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    return x, tuple(n - k + 1 for n, k in zip(x.shape[1:4], kernel.shape[:3], strict=True))


def _taps_of_time_and_height(kernel):
    kt, kh = kernel.shape[:2]
    return jnp.repeat(jnp.arange(kt), kh), jnp.tile(jnp.arange(kh), kt)


def _windows(x, size, tap, kw):
    """What each of the `kw` taps of one row of the kernel sees."""
    T, H, W = size
    rows = lax.dynamic_slice(x, (0, *tap, 0, 0), (x.shape[0], T, H, x.shape[3], x.shape[4]))
    return [rows[:, :, :, dw : dw + W] for dw in range(kw)]
