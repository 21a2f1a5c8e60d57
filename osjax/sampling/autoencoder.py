"""An autoencoder with its parameters, as sampling uses it, and pixels between files and models."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, Sharding

from osjax.models import tiling
from osjax.models.autoencoder import LatentScale
from osjax.parallel import rules, sharding
from osjax.types import Tree


@dataclass(frozen=True)
class Autoencoder:
    """Pixels in [-1, 1] to normalised latents and back.

    module: keeps the contract of models/autoencoder.py. params: arrays; a pipeline also takes `Stored` ones.
    scale: a further normalisation of its latents, measured on data, per channel or the same for all; the released
    autoencoders need none.
    """

    module: nn.Module
    params: Tree
    scale: LatentScale = LatentScale()

    @property
    def causal(self) -> bool:
        """Whether the first latent frame stands for the first frame alone."""
        return self.module.stride.causal

    @property
    def time_compression(self) -> int:
        """Frames of a video to a latent frame."""
        return self.module.stride.time

    def latent_shape(self, T: int, H: int, W: int) -> tuple[int, int, int, int]:
        """(T, H, W, C) of the latent of a video of T frames and H times W pixels.

        UserError where the stride does not divide them.
        """
        return *self.module.latent_shape(T, H, W), self.module.cfg.latent_channels

    def decoded_frames(self, frames: int) -> int:
        """Frames that come back of a video of so many, where the stride divides them: tiles may lose the last ones."""
        stride = self.module.stride
        return tiling.decoded_frames(self.module, stride.latent_shape(frames, stride.space, stride.space)[0])

    def encode(self, video_BTHWC: jax.Array) -> jax.Array:
        """Normalised latents (B, t, h, w, c), float32, of pixels in [-1, 1]; tile by tile where the module says so."""
        return self.scale.normalise(self._run("encode", video_BTHWC))

    def decode(self, latents_BTHWC: jax.Array) -> jax.Array:
        """Pixels (B, T, H, W, 3) of normalised latents, about [-1, 1]; tile by tile where the module says so."""
        return self._run("decode", self.scale.restore(latents_BTHWC))

    def lower(
        self, method: str, params: Tree, shape: tuple[int, ...], where: Sharding | None = None
    ) -> jax.stages.Lowered:
        """The largest program that a method runs on an input of this shape (B, T, H, W, C). Allocates nothing.

        method: "encode" or "decode". params: shapes, with shardings or without. where: the sharding of the input.
        """
        asked, stride = self.module.tiling, self.module.stride
        space, time = (stride.space, stride.time) if method == "decode" else (1, 1)
        B, T, H, W, C = shape
        if asked.use_spatial_tiling:
            H, W = (min(size, asked.spatial_tile_size // space) for size in (H, W))
        if asked.use_temporal_tiling:
            T = min(T, asked.temporal_tile_size // time + stride.causal)
        tile = jax.ShapeDtypeStruct((B, T, H, W, C), jnp.float32, sharding=where)
        with self._mesh():
            return _apply.lower(self.module, params, tile, method)

    def _run(self, method: str, x: jax.Array) -> jax.Array:
        asked = self.module.tiling
        with self._mesh():
            if asked.use_spatial_tiling or asked.use_temporal_tiling:
                return getattr(tiling, method)(self.module, self.params, x)
            return _apply(self.module, self.params, x, method)

    def _mesh(self) -> AbstractContextManager:
        """In force while it is traced: that of the parameters, so that kernels are gathered and clips stay."""
        where = getattr(jax.tree.leaves(self.params)[0], "sharding", None)
        return sharding.under(where.mesh, rules.AUTOENCODER) if isinstance(where, NamedSharding) else nullcontext()


@partial(jax.jit, static_argnums=(0, 3))
def _apply(module: nn.Module, params: Tree, x: jax.Array, method: str) -> jax.Array:
    return module.apply({"params": params}, x, method=method)


def to_uint8(video: np.ndarray | jax.Array) -> np.ndarray:
    """The uint8 pixels nearest to the pixels of `video`, which are floats in [-1, 1]; same shape."""
    return np.clip(np.round((np.asarray(video, np.float32) + 1) * 127.5), 0, 255).astype(np.uint8)


def to_float(video: np.ndarray | jax.Array) -> np.ndarray:
    """The pixels of `video` as float32 in [-1, 1]: uint8 ones are rescaled, floats stay; same shape."""
    video = np.asarray(video)
    return np.asarray(video, np.float32) / 127.5 - 1 if video.dtype == np.uint8 else video.astype(np.float32)
