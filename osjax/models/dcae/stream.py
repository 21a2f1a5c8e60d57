"""Encoding and decoding clips of any length chunk by chunk, in memory that depends on the chunk alone.

For a DC-AE with `chunk_frames`; the pieces together are what `encode` and `decode` give of the whole clip.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from osjax.errors import UserError
from osjax.models.dcae.chunks import STREAM
from osjax.types import NamedTree, Tree


def encode(model: nn.Module, params: NamedTree, chunks: Iterable[jax.Array]) -> Iterator[jax.Array]:
    """Pixels (B, chunk_frames, H, W, C) in the order of the clip -> normalised latents of each.

    UserError for a model without chunks, and for a piece that is no chunk or of another size than the first.
    """
    return _stream(model, params, chunks, "encode", model.cfg.chunk_frames)


def decode(model: nn.Module, params: NamedTree, chunks: Iterable[jax.Array]) -> Iterator[jax.Array]:
    """Normalised latents (B, chunk_frames / stride, H, W, C) in the order of the clip -> pixels of each.

    model, params: a DC-AE with chunks and its parameters. chunks: the latents. UserError as in `encode`.
    """
    return _stream(model, params, chunks, "decode", model.cfg.chunk_frames // model.stride.time)


def _stream(model: nn.Module, params: NamedTree, chunks: Iterable[jax.Array], method: str, frames: int) -> Iterator:
    if not frames:
        raise UserError("a stream needs a DC-AE with chunk_frames: the released model sees a clip as a whole")
    return _pieces(model, params, chunks, method, frames)


def _pieces(model: nn.Module, params: NamedTree, chunks: Iterable[jax.Array], method: str, frames: int) -> Iterator:
    kept, shape = None, None
    for x in chunks:
        shape = shape or (x.shape[0], frames, *x.shape[2:])
        if x.shape != shape:
            raise UserError(f"a piece of the stream is {x.shape}, not {shape}: give chunks of {frames} frames")
        if kept is None:
            kept = _nothing(model, params, x, method)
        y, kept = _step(model, params, kept, x, method)
        yield y


def _nothing(model: nn.Module, params: NamedTree, x: jax.Array, method: str) -> Any:
    """What the first chunk has before it: zeros."""
    _, kept = jax.eval_shape(partial(_apply, model, method=method), params, {}, x)
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), kept)


def _apply(model: nn.Module, params: NamedTree, kept: Tree, x: jax.Array, method: str) -> tuple[jax.Array, Any]:
    y, after = model.apply({"params": params, STREAM: kept}, x, method=method, mutable=[STREAM])
    return y, after[STREAM]


_step = jax.jit(_apply, static_argnums=(0, 4), donate_argnums=2)
