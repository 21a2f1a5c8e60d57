"""Encoding and decoding in overlapping tiles, so that memory does not grow with the video. For any autoencoder.

The original's arithmetic, quirks included: tiles step by int(tile * (1 - overlap)) on the input side; on the output
side the seam is int(tile * overlap) wide and each tile keeps its first tile - seam lines. In a seam, line k of the new
tile weighs k / seam. Seams are blended downwards, then rightwards, then forwards in time, each against neighbours that
are blended already, which matters at corners.
Source: Open-Sora opensora/models/dc_ae/models/dc_ae.py and opensora/models/hunyuan_vae/autoencoder_kl_causal_3d.py.
"""

from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from osjax.errors import UserError
from osjax.models.autoencoder import Stride, Tiling
from osjax.types import NamedTree

TIME, HEIGHT, WIDTH = 1, 2, 3  # axes of (B, T, H, W, C)


def encode(
    model: nn.Module, params: NamedTree, x_BTHWC: jax.Array, method: str = "encode", **overrides: Any
) -> jax.Array:
    """Pixels (B, T, H, W, C) -> latents, in the tiles that `model.tiling` asks for.

    model, params: an autoencoder (`models/autoencoder.py`) and its parameters.
    overrides: fields of `Tiling`; a tile size given here also switches its tiling on, unless the switch is given too.
    method: the model's method that runs on one tile. Blending is a weighted mean, so latents, which are moments scaled
            and shifted, blend to the same values as the moments would.
    Raises UserError on a size that the model cannot take, or on tiles that do not fall on whole latent pixels.
    """
    tiling, stride = _settings(model.tiling, overrides), model.stride
    model.latent_shape(*x_BTHWC.shape[1:4])
    tile = partial(_apply, model, params, method=method)
    return _tiled(tile, x_BTHWC, tiling, stride, decoding=False)


def decode(
    model: nn.Module, params: NamedTree, z_BTHWC: jax.Array, method: str = "decode", **overrides: Any
) -> jax.Array:
    """Latents (B, T, H, W, C) -> pixels, in tiles; the mirror of `encode`.

    model, params: an autoencoder and its parameters. method: which of its methods runs on a tile. overrides: fields of
    `Tiling`.
    A DC-AE's last tile of one latent frame decodes to one frame, so a tiled video may be shorter than an untiled one.
    """
    tiling, stride = _settings(model.tiling, overrides), model.stride
    tile = partial(_apply, model, params, method=method)
    return _tiled(tile, z_BTHWC, tiling, stride, decoding=True)


def decoded_frames(model: nn.Module, T: int) -> int:
    """Frames that `decode` makes of T latent frames, in the tiles that `model.tiling` asks for. Allocates nothing."""
    tiling, stride = model.tiling, model.stride
    cut = _cut("temporal", tiling, stride.time, decoding=True)
    if not tiling.use_temporal_tiling or T <= cut.tile:
        return stride.pixel_shape(T, 1, 1)[0]

    def tile(z: jax.Array) -> jax.Array:
        return jnp.zeros((1, stride.pixel_shape(z.shape[TIME], 1, 1)[0]))

    return jax.eval_shape(partial(_in_time, tile, cut=cut, causal=stride.causal), jnp.zeros((1, T))).shape[TIME]


@partial(jax.jit, static_argnums=(0,), static_argnames=("method",))
def _apply(model: nn.Module, params: NamedTree, x_BTHWC: jax.Array, method: str) -> jax.Array:
    return model.apply({"params": params}, x_BTHWC, method=method)  # one compilation per shape of tile


@dataclass(frozen=True)
class _Cut:
    """One dimension: input lines per tile and from tile to tile, output lines kept of a tile and blended in a seam."""

    tile: int
    step: int
    keep: int
    seam: int


def _cut(name: str, tiling: Tiling, stride: int, decoding: bool) -> _Cut:
    """The cut of the `temporal` or `spatial` dimensions. stride: pixels per latent there."""
    size, overlap = getattr(tiling, f"{name}_tile_size"), tiling.tile_overlap_factor
    tile, tile_out = (size // stride, size) if decoding else (size, size // stride)
    step, seam = int(tile * (1 - overlap)), int(tile_out * overlap)
    aligned = size % stride == 0 and (decoding or step % stride == 0)
    if getattr(tiling, f"use_{name}_tiling") and not (aligned and step > 0 and overlap >= 0):
        raise UserError(
            f"{name}_tile_size {size} with tile_overlap_factor {overlap} does not step by whole latents of {stride}: "
            f"make the size and size * (1 - overlap) positive multiples of {stride}."
        )
    return _Cut(tile, step, tile_out - seam, seam)


def _settings(tiling: Tiling, overrides: dict[str, Any]) -> Tiling:
    known = {f.name for f in fields(Tiling)}
    if unknown := sorted(set(overrides) - known):
        raise TypeError(f"unknown tiling setting {', '.join(unknown)}; the settings are {', '.join(sorted(known))}")
    asked = {f"use_{name}_tiling": True for name in ("spatial", "temporal") if f"{name}_tile_size" in overrides}
    return replace(tiling, **{**asked, **overrides})


def _tiled(tile, x: jax.Array, tiling: Tiling, stride: Stride, decoding: bool) -> jax.Array:
    time, space = (_cut("temporal", tiling, stride.time, decoding), _cut("spatial", tiling, stride.space, decoding))
    if tiling.use_spatial_tiling and max(x.shape[HEIGHT], x.shape[WIDTH]) > space.tile:
        tile = partial(_in_space, tile, cut=space)
    if tiling.use_temporal_tiling and x.shape[TIME] > time.tile:
        return _in_time(tile, x, time, stride.causal)
    return tile(x)


def _in_space(tile, x: jax.Array, cut: _Cut) -> jax.Array:
    rows, above = [], None
    for top in range(0, x.shape[HEIGHT], cut.step):
        row: list[jax.Array] = []
        for n, left in enumerate(range(0, x.shape[WIDTH], cut.step)):
            y = tile(x[:, :, top : top + cut.tile, left : left + cut.tile])
            if above is not None:
                y = _blend(above[n], y, HEIGHT, cut.seam)
            if row:
                y = _blend(row[-1], y, WIDTH, cut.seam)
            row.append(y)
        rows.append(jnp.concatenate([y[:, :, : cut.keep, : cut.keep] for y in row], axis=WIDTH))
        above = row
    return jnp.concatenate(rows, axis=HEIGHT)


def _in_time(tile, x: jax.Array, cut: _Cut, causal: bool) -> jax.Array:
    """A causal model's tiles read one frame more; all but the first then drop their first output, which stood alone."""
    extra = int(causal)
    previous, kept = None, []
    for start in range(0, x.shape[TIME], cut.step):
        y = tile(x[:, start : start + cut.tile + extra])
        if previous is None:
            kept.append(y[:, : cut.keep + extra])
        else:
            y = _blend(previous, y[:, extra:], TIME, cut.seam)
            kept.append(y[:, : cut.keep])
        previous = y
    return jnp.concatenate(kept, axis=TIME)


@partial(jax.jit, static_argnums=(2, 3))
def _blend(old: jax.Array, new: jax.Array, axis: int, seam: int) -> jax.Array:
    """Fade from the last lines of `old` into the first lines of `new`; a short tile shrinks the seam."""
    seam = min(seam, old.shape[axis], new.shape[axis])
    if seam == 0:
        return new
    shape = [1] * new.ndim
    shape[axis] = seam
    weight = (jnp.arange(seam, dtype=new.dtype) / seam).reshape(shape)
    tail = jax.lax.slice_in_dim(old, old.shape[axis] - seam, old.shape[axis], axis=axis)
    head, rest = jnp.split(new, [seam], axis=axis)
    return jnp.concatenate([tail * (1 - weight) + head * weight, rest], axis=axis)
