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


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv(x_BTHWC: jax.Array, kernel: jax.Array, stride: Triple, padding: Padding) -> jax.Array:
    """x (B, T, H, W, C), kernel (kt, kh, kw, C, O) -> (B, T', H', W', O), in x's dtype."""
    return _times(_patches(x_BTHWC, kernel.shape[:3], stride, padding), _flat(kernel), (4, 0))


def _forward(x, kernel, stride, padding):
    return conv(x, kernel, stride, padding), (x, kernel)


def _backward(stride, padding, saved, dy):
    x, kernel = saved
    size = kernel.shape[:3]
    patches = _patches(x, size, stride, padding)  # again, rather than kept
    dkernel = product(patches, dy, (((0, 1, 2, 3), (0, 1, 2, 3)), ((), ())))
    dpatches = _times(dy, _flat(kernel), (4, 1))
    return _summed(dpatches, x.shape, size, stride, padding), dkernel.reshape(kernel.shape)


conv.defvjp(_forward, _backward)


def _times(a, b, axes):
    return product(a, b, (((axes[0],), (axes[1],)), ((), ())))


def _flat(kernel):
    return kernel.reshape(-1, kernel.shape[-1])


def _taps(size: Triple) -> Iterator[Triple]:
    return every(*map(range, size))


def _patches(x, size, stride, padding):
    """(B, T', H', W', taps * C). Of the padded input every stride-th value from a tap on, for each tap."""
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    out = [(n - k) // s + 1 for n, k, s in zip(x.shape[1:4], size, stride, strict=True)]

    def seen(tap):
        last = [i + (n - 1) * s + 1 for i, n, s in zip(tap, out, stride, strict=True)]
        return lax.slice(x, (0, *tap, 0), (x.shape[0], *last, x.shape[4]), (1, *stride, 1))

    return jnp.concatenate([seen(tap) for tap in _taps(size)], -1)


def _summed(dpatches, shape, size, stride, padding):
    """The transpose of `_patches`: every input's sum over the patches that it is in.

    Inputs whose index leaves the same rest by the stride are in the same taps: each such phase is a sum of shifted
    taps, and the phases are then dealt out in turn.
    """
    B, *inner, C = shape
    padded = [n + sum(p) for n, p in zip(inner, padding, strict=True)]
    per_phase = [math.ceil(n / s) for n, s in zip(padded, stride, strict=True)]
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
    start = [before for before, _ in padding]
    return lax.slice(dx, (0, *start, 0), (B, *(a + n for a, n in zip(start, inner, strict=True)), C))
