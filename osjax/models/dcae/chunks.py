"""Clips in chunks: a frame sees its own chunk and what came just before it, never a later chunk.

A whole clip is cut into chunks that become rows of the batch, each behind a copy of what it sees of the past: nothing
is computed twice. A stream comes one chunk a call; what the next one needs then lies in the collection `stream`, whose
size depends on the chunk alone. Both give the same numbers. An image is a chunk of one frame.

The idea is that of DC-AE-V (DC-VideoGen), the form is our own: convolutions see the frames before the chunk, attention
the chunk before it, so that nothing depends on how long a clip has lasted.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from osjax.ops.conv import Conv3d, Triple

STREAM = "stream"


def streaming(module: nn.Module) -> bool:
    """Whether this call brings one chunk of a stream."""
    return module.is_mutable_collection(STREAM) and not module.is_initializing()


def count(module: nn.Module, frames: int, chunk: int) -> int:
    """Number of chunks of `chunk` frames in `frames`, 1 at least; each call of a stream of `module` brings one."""
    return 1 if streaming(module) else max(1, frames // chunk)


def conv(
    module: nn.Module,
    x_BTHWC: jax.Array,
    chunk: int,
    features: int,
    kernel_size: Triple,
    stride: Triple = (1, 1, 1),
    *,
    name: str,
    **options: Any,
) -> jax.Array:
    """A `Conv3d` of `module`, called `name`, over a clip in chunks of `chunk` frames; 0 takes it whole.

    features: channels of the result. kernel_size, stride: along T, H and W. options: further fields of `Conv3d`.
    Behind the last frame of every chunk there are zeros, as there are behind a whole clip.
    """
    reach = kernel_size[0] // 2
    if not chunk or not reach:
        return Conv3d(features, kernel_size, stride, name=name, **options)(x_BTHWC)
    rows = _behind_past(module, f"{name}_past", x_BTHWC, reach, chunk)
    padding = ((0, reach), *((k // 2, k // 2) for k in kernel_size[1:]))
    y = Conv3d(features, kernel_size, stride, padding, name=name, **options)(rows)
    return y.reshape(x_BTHWC.shape[0], -1, *y.shape[2:])


def previous(module: nn.Module, name: str, sums: Sequence[jax.Array], chunks: int) -> list[jax.Array]:
    """Arrays whose row for each chunk holds what the chunk before had in `sums`, zeros for the first chunk of a clip.

    sums: arrays with a row for every chunk, (B * chunks, ...). chunks: of one clip. In a stream the row before is kept
    by `module` as a variable whose name begins with `name`.
    """
    return [_previous(module, f"{name}{n}", x, chunks) for n, x in enumerate(sums)]


def _previous(module: nn.Module, name: str, x: jax.Array, chunks: int) -> jax.Array:
    if streaming(module):
        return _exchange(module, name, jnp.zeros_like(x), x)
    by_clip = x.reshape(-1, chunks, *x.shape[1:])
    return jnp.concatenate([jnp.zeros_like(by_clip[:, :1]), by_clip[:, :-1]], 1).reshape(x.shape)


def _behind_past(module: nn.Module, name: str, x_BTHWC: jax.Array, reach: int, chunk: int) -> jax.Array:
    """Rows (B * n, reach + T / n, H, W, C): every chunk behind the last `reach` frames of the one before it."""
    B, T, *rest = x_BTHWC.shape
    past = jnp.zeros((B, 1, reach, *rest), x_BTHWC.dtype)
    if streaming(module):
        return jnp.concatenate([_exchange(module, name, past[:, 0], x_BTHWC[:, T - reach :]), x_BTHWC], 1)
    n = count(module, T, chunk)
    chunks = x_BTHWC.reshape(B, n, T // n, *rest)
    if n > 1:
        past = jnp.concatenate([past, chunks[:, :-1, T // n - reach :]], 1)
    return jnp.concatenate([past, chunks], 2).reshape(B * n, reach + T // n, *rest)


def _exchange(module: nn.Module, name: str, first: jax.Array, new: jax.Array) -> jax.Array:
    """What the chunk before left under this name (`first` where there was none), with `new` left in its place."""
    kept = module.variable(STREAM, name, lambda: first)
    old, kept.value = kept.value, new
    return old
