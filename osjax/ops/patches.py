"""Convolution as one product: for every output the inputs that the kernel sees, side by side, times the kernel.

Patches are as many times the input as the kernel has taps (over the strides), so it is for few values of many channels
and for strides. Both gradients are products too, and none of the three needs a transposed copy of the kernel.
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product as every

import jax
import jax.numpy as jnp
from jax import lax

from osjax.ops.product import product

Triple = tuple[int, int, int]
Padding = Sequence[tuple[int, int]]
STEP = 2**26  # values of patches that are in memory at a time, or those of one frame of the result


def conv(x_BTHWC: jax.Array, kernel: jax.Array, stride: Triple, padding: Padding) -> jax.Array:
    """x (B, T, H, W, C), kernel (kt, kh, kw, C, O) -> (B, T', H', W', O), in x's dtype.

    stride: along T, H and W. padding: zeros before and behind along each.
    """
    x = jnp.pad(x_BTHWC, ((0, 0), *padding, (0, 0)))
    size, out = kernel.shape[:3], _out(x.shape, kernel.shape, stride)
    in_frame = x.shape[0] * out[1] * out[2] * math.prod(kernel.shape[:4])
    per = max(n for n in range(1, out[0] + 1) if out[0] % n == 0 and (n == 1 or n * in_frame <= STEP))
    frames = (per - 1) * stride[0] + size[0]  # that as many frames of the result see
    starts = range(0, out[0] * stride[0], per * stride[0])
    windows = jnp.stack([lax.slice_in_dim(x, start, start + frames, axis=1) for start in starts])
    y = lax.map(lambda window: _conv(window, kernel, stride), windows)
    return jnp.moveaxis(y, 0, 1).reshape(x.shape[0], *out, -1)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(x, kernel, stride):
    return _times(_patches(x, kernel.shape, stride), _flat(kernel), (4, 0))


def _forward(x, kernel, stride):
    return _conv(x, kernel, stride), (x, kernel)


def _backward(stride, saved, dy):
    x, kernel = saved
    patches = _patches(x, kernel.shape, stride)  # again, rather than kept
    dkernel = product(patches, dy, (((0, 1, 2, 3), (0, 1, 2, 3)), ((), ())))
    dpatches = _times(dy, _flat(kernel), (4, 1))
    return _summed(dpatches, x.shape, kernel.shape[:3], stride), dkernel.reshape(kernel.shape)


_conv.defvjp(_forward, _backward)


def _out(shape, kernel_shape, stride):
    """(T', H', W') of a padded input's convolution."""
    return [(n - k) // s + 1 for n, k, s in zip(shape[1:4], kernel_shape[:3], stride, strict=True)]


def _times(a, b, axes):
    return product(a, b, (((axes[0],), (axes[1],)), ((), ())))


def _flat(kernel):
    return kernel.reshape(-1, kernel.shape[-1])


def _taps(size: Triple) -> Iterator[Triple]:
    return every(*map(range, size))


def _patches(x, kernel_shape, stride):
    """(B, T', H', W', taps * C): every stride-th value of the input from a tap on, for each tap."""
    out = _out(x.shape, kernel_shape, stride)

    def seen(tap):
        last = [i + (n - 1) * s + 1 for i, n, s in zip(tap, out, stride, strict=True)]
        return lax.slice(x, (0, *tap, 0), (x.shape[0], *last, x.shape[4]), (1, *stride, 1))

    return jnp.concatenate([seen(tap) for tap in _taps(kernel_shape[:3])], -1)


def _summed(dpatches, shape, size, stride):
    """The transpose of `_patches`: every input's sum over the patches that it is in.

    Inputs whose index leaves the same rest by the stride are in the same taps: each such phase is a sum of shifted
    taps, and the phases are then dealt out in turn.
    """
    B, *inner, C = shape
    per_phase = [math.ceil(n / s) for n, s in zip(inner, stride, strict=True)]
    parts = dict(zip(_taps(size), jnp.split(dpatches, math.prod(size), -1), strict=True))

    def shifted(tap):
        """The tap's part where its inputs are within their phase."""
        first = [i // s for i, s in zip(tap, stride, strict=True)]
        part = parts[tap]
        room = [(a, n - a - m) for a, n, m in zip(first, per_phase, part.shape[1:4], strict=True)]
        return jnp.pad(part, ((0, 0), *room, (0, 0)))

    def phase(rest):
        taps = [tap for tap in parts if all(i % s == r for i, s, r in zip(tap, stride, rest, strict=True))]
        return sum(map(shifted, taps)) if taps else jnp.zeros((B, *per_phase, C), dpatches.dtype)

    phases = jnp.stack([phase(rest) for rest in every(*map(range, stride))])
    phases = phases.reshape(*stride, B, *per_phase, C)
    whole = (n * s for n, s in zip(per_phase, stride, strict=True))
    dx = phases.transpose(3, 4, 0, 5, 1, 6, 2, 7).reshape(B, *whole, C)
    return lax.slice(dx, (0,) * 5, shape)
