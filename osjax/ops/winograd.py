"""Convolutions with up to eight times fewer products: Winograd's F(2, 3) and F(4, 3), along every axis of three taps.

Two neighbouring outputs of three taps need four products instead of six, four need six instead of twelve, between sums
of inputs and sums of the taps. Four along each of three axes are 216 products for 64 outputs instead of 1728. The
sums move three times the input through memory (eight times with pairs), so it pays where channels are many; the sums
of the taps are eight times the kernel, so pairs are better where places are few. In float32 the result is off by 2e-6
of the largest, a direct convolution's by 4e-7.
Source: Lavin and Gray 2015, "Fast Algorithms for Convolutional Neural Networks". The points at which the polynomials
are multiplied lie closer to one than theirs (0, 1, -1, 2, -2), whose error is seven times as large.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial, reduce
from itertools import product as every

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Padding = Sequence[tuple[int, int]]
STEP = 2**26  # sums of inputs that are in memory at a time, or those of one tile in time
# Measured: making and reading one more sum of taps takes as long as the products of so many places with it.
PER_SUM = 64


@dataclass(frozen=True, eq=False)
class Tile:
    """F(outputs, 3) along one axis. n = outputs + 2: the products it takes.

    of_inputs: (n, n), of_taps: (n, 3): what is multiplied. of_products: (outputs, n): what is added up then.
    """

    outputs: int
    of_inputs: np.ndarray
    of_taps: np.ndarray
    of_products: np.ndarray


Tiles = tuple[Tile | None, Tile | None, Tile | None]  # along T, H and W; None where the kernel has one tap


def _tile(*points: float) -> Tile:
    """The tile of Toom and Cook: polynomials are known by their values at these points and at infinity."""
    n = len(points) + 1
    others = [[q for q in points if q != p] for p in points]
    powers = np.vander(points, n, increasing=True)
    lagrange = [np.append(np.poly(rest)[::-1], 0) for rest in others]
    taps = [row[:3] / np.prod(np.subtract(p, rest)) for p, row, rest in zip(points, powers, others, strict=True)]
    at_infinity = np.eye(n - 2)[:, -1:]
    return Tile(
        n - 2,
        np.float32([*lagrange, np.poly(points)[::-1]]),
        np.float32([*taps, (0, 0, 1)]),
        np.float32(np.hstack([powers[:, : n - 2].T, at_infinity])),
    )


PAIR, FOUR = _tile(0, 1, -1), _tile(0, 0.75, -0.75, 1.5, -1.5)


def suits(kernel_shape: Sequence[int], stride: Sequence[int], padding: Padding) -> bool:
    """Whether `conv` can do it: one or three taps along each axis, three along rows or columns, stride one.

    kernel_shape: (kt, kh, kw, ...). stride: along T, H and W. padding: zeros before and behind along each.
    """
    size = tuple(kernel_shape[:3])
    near = all(max(pair) < taps for pair, taps in zip(padding, size, strict=True))
    return set(size) <= {1, 3} and 3 in size[1:] and tuple(stride) == (1, 1, 1) and near


def conv(x_BTHWC: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    """x (B, T, H, W, C), kernel (kt, kh, kw, C, O) -> (B, T', H', W', O), for what `suits`.

    padding: zeros before and behind along T, H and W.
    In x's dtype; between, in float32: bfloat16 would lose the sums' digits.
    """
    return _conv(x_BTHWC.astype(jnp.float32), kernel.astype(jnp.float32), padding).astype(x_BTHWC.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(x, kernel, padding):
    wanted, tiles = _plan(x.shape, kernel.shape, padding)
    x, sums = _padded(x, wanted, tiles, padding), _over_taps(kernel, tiles)

    def frames(window):
        return _outputs(_product("knc,kcf->knf", _inputs(window, tiles), sums), tiles)

    y = lax.map(frames, _windows(x, _step(x, tiles), _overlap(tiles)))
    return _in_time(y)[:, : wanted[0], : wanted[1], : wanted[2]]


def _forward(x, kernel, padding):
    return _conv(x, kernel, padding), (x, kernel)


def _backward(padding, saved, dy):
    """Both gradients from the same sums over dy: as products with the inputs' sums, and with the taps'."""
    x, kernel = saved
    wanted, tiles = _plan(x.shape, kernel.shape, padding)
    unpadded, x, sums = x.shape, _padded(x, wanted, tiles, padding), _over_taps(kernel, tiles)
    dy = jnp.pad(dy, [(0, 0), *((0, _missing(n, tile)) for n, tile in zip(wanted, tiles, strict=True)), (0, 0)])

    def frames(total, windows):
        window, dy_window = windows
        spread = _spread(dy_window, tiles)
        total = total + jnp.einsum("knc,knf->kcf", _rows(_inputs(window, tiles)), _rows(spread))
        return total, _of_inputs(_product("knf,kcf->knc", spread, sums), tiles)

    per, overlap = _step(x, tiles), _overlap(tiles)
    total, parts = lax.scan(frames, jnp.zeros_like(sums), (_windows(x, per, overlap), _windows(dy, per, 0)))
    dx = _joined(parts, overlap)
    dx = lax.slice(dx, (0, *(a for a, _ in padding), 0), (unpadded[0], *_ends(padding, unpadded), unpadded[4]))
    return dx, (_combined(tiles).T @ total.reshape(len(total), -1)).reshape(kernel.shape)


_conv.defvjp(_forward, _backward)


def _ends(padding, shape):
    return (before + n for (before, _), n in zip(padding, shape[1:4], strict=True))


def _plan(shape, kernel_shape, padding) -> tuple[tuple[int, int, int], Tiles]:
    """The size (T, H, W) of the result, and the tiles that make it with the least work."""
    size = kernel_shape[:3]
    wanted = tuple(n + sum(p) - k + 1 for n, p, k in zip(shape[1:4], padding, size, strict=True))

    def work(tiles):
        places, sums = shape[0], 1
        for n, tile in zip(wanted, tiles, strict=True):
            places *= -(-n // tile.outputs) if tile else n
            sums *= tile.outputs + 2 if tile else 1
        return sums * (places + PER_SUM)

    return wanted, min(every(*((PAIR, FOUR) if k == 3 else (None,) for k in size)), key=work)


def _missing(n, tile):
    """Values that `n` lacks to whole tiles."""
    return -n % tile.outputs if tile else 0


def _overlap(tiles):
    """Frames that neighbouring tiles in time both see."""
    return 2 if tiles[0] else 0


def _product(how, x, sums):
    """`einsum` over all places at once: on a CPU XLA is up to three times as fast with a single axis of rows."""
    return jnp.einsum(how, _rows(x), sums).reshape(*x.shape[:-1], -1)


def _rows(x):
    return x.reshape(len(x), -1, x.shape[-1])


def _combined(tiles):
    """(sums, taps): the sums of taps along all axes at once, the first axis varying slowest."""
    return reduce(np.kron, [tile.of_taps for tile in tiles if tile])


def _over_taps(kernel, tiles):
    combined = _combined(tiles)
    return (combined @ kernel.reshape(combined.shape[1], -1)).reshape(-1, *kernel.shape[3:])


def _padded(x, wanted, tiles, padding):
    """x with zeros around it, up to whole tiles."""
    room = [(a, b + _missing(n, tile)) for (a, b), n, tile in zip(padding, wanted, tiles, strict=True)]
    return jnp.pad(x, [(0, 0), *room, (0, 0)])


def _step(x, tiles):
    """Frames of the result that are made at a time: whole tiles of them, that divide all."""
    per = tiles[0].outputs if tiles[0] else 1
    count = (x.shape[1] - _overlap(tiles)) // per
    sums = x.size * math.prod((tile.outputs + 2) / tile.outputs for tile in tiles if tile)
    return per * max(n for n in range(1, count + 1) if count % n == 0 and (n == 1 or n * sums <= STEP * count))


def _windows(x, per, overlap):
    """(n, B, per + overlap, H, W, C): the frames that each step sees."""
    starts = range(0, x.shape[1] - overlap, per)
    return jnp.stack([lax.slice_in_dim(x, start, start + per + overlap, axis=1) for start in starts])


def _in_time(parts):
    """(n, B, frames, H, W, C) -> (B, n * frames, H, W, C)."""
    parts = jnp.moveaxis(parts, 0, 1)
    return parts.reshape(parts.shape[0], -1, *parts.shape[3:])


def _joined(parts, overlap):
    """The transpose of `_windows`: the last `overlap` frames of a part lie on the next one's first."""
    if not overlap:
        return _in_time(parts)
    per = parts.shape[2] - overlap
    own, over = parts[:, :, :per], parts[:, :, per:]
    own = own + jnp.pad(over[:-1], [(1, 0), (0, 0), (0, per - overlap)] + [(0, 0)] * (parts.ndim - 3))
    return jnp.concatenate([_in_time(own), over[-1]], 1)


def _weighted(matrix, parts):
    """For every row of the matrix the sum of the parts times its entries."""

    def total(row):
        terms = [part if c == 1 else -part if c == -1 else c * part for c, part in zip(row, parts, strict=True) if c]
        return sum(terms[1:], terms[0])

    return [total(row) for row in matrix]


def _along(tiles, backwards=False):
    """(axis of (B, T, H, W, C), tile) of those that are transformed."""
    transformed = [(axis, tile) for axis, tile in enumerate(tiles, 1) if tile]
    return reversed(transformed) if backwards else transformed


def _inputs(x, tiles):
    """(B, T, H, W, C) -> (sums, B, t, h, w, C): of the leading index the first axis varies slowest."""
    x = x[None]
    for axis, tile in _along(tiles, backwards=True):
        last = x.shape[axis + 1] - tile.outputs - 1  # past the start of the last tile
        seen = [lax.slice_in_dim(x, i, last + i, tile.outputs, axis + 1) for i in range(tile.outputs + 2)]
        x = jnp.concatenate(_weighted(tile.of_inputs, seen), axis=0)
    return x


def _of_inputs(sums, tiles):
    """The transpose of `_inputs`: (sums, B, t, h, w, C) -> (B, T, H, W, C)."""
    for axis, tile in _along(tiles):
        sums = sums.reshape(tile.outputs + 2, -1, *sums.shape[1:])
        sums = _overlaid(_weighted(tile.of_inputs.T, sums), axis + 1)
    return sums[0]


def _overlaid(seen, axis):
    """Tiles of n values laid so that the last two of each lie on the next one's first two."""

    def at(part, before):
        return jnp.pad(part, [(0, 0)] * axis + [(before, 1 - before)] + [(0, 0)] * (part.ndim - axis - 1))

    *first, last, end = seen
    phases = [at(part, 0) for part in first]
    for i, part in enumerate((last, end)):
        phases[i] += at(part, 1)
    x = _dealt(phases, axis)
    return lax.slice_in_dim(x, 0, x.shape[axis] - len(phases) + 2, axis=axis)


def _outputs(products, tiles):
    """(sums, B, t, h, w, C) -> (B, T, H, W, C)."""
    for axis, tile in _along(tiles):
        products = products.reshape(tile.outputs + 2, -1, *products.shape[1:])
        products = _dealt(_weighted(tile.of_products, products), axis + 1)
    return products[0]


def _spread(dy, tiles):
    """The transpose of `_outputs`."""
    dy = dy[None]
    for axis, tile in _along(tiles, backwards=True):
        end = dy.shape[axis + 1]
        outputs = [lax.slice_in_dim(dy, i, end, tile.outputs, axis + 1) for i in range(tile.outputs)]
        dy = jnp.concatenate(_weighted(tile.of_products.T, outputs), axis=0)
    return dy


def _dealt(phases, axis):
    """Values of each phase in turn along an axis."""
    x = jnp.stack(phases, axis + 1)
    return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])
