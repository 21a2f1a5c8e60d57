"""Convolutions with 3.4 times fewer products: Winograd's F(2, 3) along every axis on which the kernel has three taps.

Two neighbouring outputs of three taps need four products instead of six, between sums of four inputs and sums of the
taps. Along three axes that is 64 products for eight outputs instead of 216, and in float32 the result is off by about
1e-6 of the largest. The sums move eight times the input through memory, so it pays where channels are many.
Source: Lavin and Gray 2015, "Fast Algorithms for Convolutional Neural Networks".
"""

import math
from collections.abc import Sequence
from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Padding = Sequence[tuple[int, int]]
STEP = 2**26  # sums of inputs that are in memory at a time, or those of two frames

# Rows are the four products: sums of three taps, and by which signs they add up to two outputs.
TAPS = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)


def suits(kernel_shape: Sequence[int], stride: Sequence[int], padding: Padding) -> bool:
    """Whether `conv` can do it: one or three taps along each axis, three along one at least, stride one."""
    size = tuple(kernel_shape[:3])
    near = all(max(pair) < taps for pair, taps in zip(padding, size, strict=True))
    return set(size) <= {1, 3} and 3 in size[1:] and tuple(stride) == (1, 1, 1) and near


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(x_BTHWC: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    """x (B, T, H, W, C), kernel (kt, kh, kw, C, O) -> (B, T', H', W', O), for what `suits`."""
    size, C, features = kernel.shape[:3], *kernel.shape[3:]
    axes = _axes(size)
    sums = _over_taps(kernel, size).reshape(-1, C, features)
    x, wanted = _padded(x_BTHWC, size, padding)

    def frames(window):
        return _outputs(_product("knc,kcf->knf", _inputs(window, axes), sums), axes)

    y = _by_frames(frames, x, size)
    return y[:, : wanted[0], : wanted[1], : wanted[2]]


def _forward(x, kernel, padding):
    return conv(x, kernel, padding), (x, kernel)


def _backward(padding, saved, dy):
    """Both gradients from the same sums over pairs of dy: as products with the inputs' sums, and with the taps'."""
    x, kernel = saved
    size, C, features = kernel.shape[:3], *kernel.shape[3:]
    axes = _axes(size)
    sums = _over_taps(kernel, size).reshape(-1, C, features)
    unpadded, (x, wanted) = x.shape, _padded(x, size, padding)
    dy = jnp.pad(dy, [(0, 0), *((0, n % 2 if k == 3 else 0) for k, n in zip(size, wanted, strict=True)), (0, 0)])

    def frames(total, windows):
        window, dy_window = windows
        spread = _spread(dy_window, axes)
        total = total + jnp.einsum("knc,knf->kcf", _rows(_inputs(window, axes)), _rows(spread))
        return total, _of_inputs(_product("knf,kcf->knc", spread, sums), axes)

    n = _step(x, size)
    total, parts = lax.scan(frames, jnp.zeros_like(sums), (_windows(x, size, n, 2), _windows(dy, size, n, 0)))
    dx = _joined(parts, 2 if size[0] == 3 else 0)
    dx = lax.slice(dx, (0, *(a for a, _ in padding), 0), (unpadded[0], *_ends(padding, unpadded), C))
    return dx, (_combined(size).T @ total.reshape(len(total), -1)).reshape(kernel.shape)


def _ends(padding, shape):
    return (before + n for (before, _), n in zip(padding, shape[1:4], strict=True))


conv.defvjp(_forward, _backward)


def _product(how, x, sums):
    """Of all places at once: XLA has a fast product on a CPU only for one axis of rows (up to three times as fast)."""
    return jnp.einsum(how, _rows(x), sums).reshape(*x.shape[:-1], -1)


def _rows(x):
    return x.reshape(len(x), -1, x.shape[-1])


def _axes(size):
    """Those of (B, T, H, W, C) that are transformed."""
    return tuple(axis for axis, taps in enumerate(size, 1) if taps == 3)


def _combined(size):
    """(4^n, 3^n): the sums of taps over all n transformed axes at once."""
    return reduce(np.kron, [TAPS] * len(_axes(size)))


def _over_taps(kernel, size):
    combined = _combined(size)
    return combined @ kernel.reshape(combined.shape[1], -1)


def _padded(x, size, padding):
    """x with zeros around it, up to whole pairs of outputs, and the size (T, H, W) of the result."""
    wanted = tuple(n + sum(p) - k + 1 for n, p, k in zip(x.shape[1:4], padding, size, strict=True))
    more = [(a, b + (n % 2 if k == 3 else 0)) for (a, b), n, k in zip(padding, wanted, size, strict=True)]
    return jnp.pad(x, [(0, 0), *more, (0, 0)]), wanted


def _by_frames(run, x, size):
    """A few frames of the result at a time: what lies between is large."""
    y = lax.map(run, _windows(x, size, _step(x, size), 2))
    y = jnp.moveaxis(y, 0, 1)
    return y.reshape(y.shape[0], -1, *y.shape[3:])


def _step(x, size):
    """Frames of the result, or pairs of them for three taps in time, that are made at a time; they divide all."""
    frames = x.shape[1] if size[0] == 1 else x.shape[1] // 2 - 1
    most = max(1, STEP * frames // (4 ** len(_axes(size)) // 2 ** len(_axes(size)) * math.prod(x.shape)))
    return max(n for n in range(1, frames + 1) if frames % n == 0 and n <= most)


def _windows(x, size, step, overlap):
    """(n, B, frames, H, W, C): of each step the frames that it sees; three taps in time see `overlap` more."""
    per = step if size[0] == 1 else 2 * step
    overlap = 0 if size[0] == 1 else overlap
    count = (x.shape[1] - overlap) // per
    return jnp.stack([lax.slice_in_dim(x, i * per, (i + 1) * per + overlap, axis=1) for i in range(count)])


def _joined(parts, overlap):
    """(n, B, frames, H, W, C) -> (B, T, H, W, C): the last `overlap` frames of a part lie on the next one's first."""
    per = parts.shape[2] - overlap
    own, over = parts[:, :, :per], parts[:, :, per:]
    own = own + jnp.pad(over[:-1], [(1, 0), (0, 0), (0, per - overlap)] + [(0, 0)] * (parts.ndim - 3))
    own = jnp.moveaxis(own, 0, 1)
    return jnp.concatenate([own.reshape(own.shape[0], -1, *own.shape[3:]), over[-1]], 1)


def _inputs(x, axes):
    """(B, T, H, W, C) -> (4^n, B, t, h, w, C): sums of inputs; of the leading index the first axis varies slowest."""
    x = x[None]
    for axis in reversed(axes):
        x = jnp.concatenate(_of_four(x, axis + 1), axis=0)
    return x


def _of_four(x, axis):
    even, odd = _pairs(x, axis)
    n = even.shape[axis] - 1
    even, next_even = (lax.slice_in_dim(even, i, i + n, axis=axis) for i in (0, 1))
    odd, next_odd = (lax.slice_in_dim(odd, i, i + n, axis=axis) for i in (0, 1))
    return even - next_even, odd + next_even, next_even - odd, odd - next_odd


def _of_inputs(sums, axes):
    """The transpose of `_inputs`: (4^n, B, t, h, w, C) -> (B, T, H, W, C)."""
    parts = list(sums)
    for axis in axes:
        quarter = len(parts) // 4
        parts = [_from_four(parts[i::quarter], axis) for i in range(quarter)]
    return parts[0]


def _from_four(four, axis):
    a, b, c, d = four

    def at(part, before):
        return jnp.pad(part, [(0, 0)] * axis + [(before, 1 - before)] + [(0, 0)] * (part.ndim - axis - 1))

    even, odd = at(a, 0) + at(b + c - a, 1), at(b - c + d, 0) - at(d, 1)
    return _dealt(even, odd, axis)


def _dealt(even, odd, axis):
    """The inverse of `_pairs`."""
    x = jnp.stack([even, odd], axis + 1)
    return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])


def _pairs(x, axis):
    x = x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :])
    return (lax.index_in_dim(x, i, axis + 1, keepdims=False) for i in (0, 1))


def _outputs(products, axes):
    """(4^n, B, t, h, w, C) -> (B, T, H, W, C)."""
    parts = list(products)
    for axis in reversed(axes):
        parts = [_of_products(parts[i : i + 4], axis) for i in range(0, len(parts), 4)]
    return parts[0]


def _of_products(four, axis):
    a, b, c, d = four
    return _dealt(a + b + c, b - c - d, axis)


def _spread(dy, axes):
    """The transpose of `_outputs`."""
    dy = dy[None]
    for axis in reversed(axes):
        first, second = _pairs(dy, axis + 1)
        dy = jnp.concatenate([first, first + second, first - second, -second], axis=0)
    return dy
