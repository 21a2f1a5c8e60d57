"""Latent distillation: a level of the encoder learns to say what DINOv2 says of the same picture.

A linear projection of that level's latents is drawn towards the teacher's features, place by place, in direction. It
learns beside the autoencoder and is no part of it. The report (section 4.3.3) aligns the third level with DINOv2 after
the autoencoder's training; of weight, projection and distance it says nothing, and the repository has no code for it.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from osjax.ops.layers import Linear
from osjax.types import Axis, NamedTree, Tree

GROUP = "alignment"  # the projection's parameters, beside the autoencoder's own groups while both are updated
EPS = 1e-6


class Alignment(struct.PyTreeNode):
    """The parameters of latent distillation, as the train state carries them.

    projection: from latents to features, trained; average: its moving average or None. teacher: DINOv2's, which stay as
    they are.
    """

    projection: Tree
    average: Tree
    teacher: Tree


class Projection(nn.Module):
    """Latents (..., C) -> the teacher's features (..., features)."""

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        return Linear((self.features,), (Axis.CONV_IN,), (Axis.FEATURES,), dtype=self.dtype, name="linear")(z)


@dataclass(frozen=True)
class Distillation:
    """How a level of the encoder learns from a teacher.

    teacher: a DINOv2. level: of the encoder, counted from 1, whose output is aligned.

    frames: latent frames of each clip that are compared, drawn anew in every step; 0 takes all.
    """

    teacher: nn.Module
    level: int = 3
    frames: int = 4

    def projection(self) -> Projection:
        """The module that maps latents to as many features as the teacher has."""
        return Projection(self.teacher.cfg.embed_dim)

    def reconstruct(self, module: nn.Module, params: NamedTree, video_BTHWC: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(reconstruction (B, T, H, W, C), latents of the level (B, t, h, w, c)) of one pass through the autoencoder.

        module, params: the autoencoder. video_BTHWC: pixels in [-1, 1].
        """
        wanted = ("encoder", f"stage{self.level - 1}")
        got, kept = module.apply(
            {"params": params},
            video_BTHWC,
            capture_intermediates=lambda part, method: method == "__call__" and part.path == wanted,
            mutable=["intermediates"],
        )
        (latents,) = kept["intermediates"][wanted[0]][wanted[1]]["__call__"]
        return got, latents

    def loss(
        self, projection: Tree, teacher: Tree, latents_BTHWC: jax.Array, video_BTHWC: jax.Array, key: jax.Array
    ) -> jax.Array:
        """1 - cosine between projected latents and the teacher's features, the mean over all places; 0 to 2.

        projection, teacher: parameters. latents_BTHWC: of the level. video_BTHWC: the same clips, pixels in [-1, 1].
        key: draws the latent frames that are compared.
        Pictures are resized so that the teacher has a patch for every place. A latent frame that stands for several
        frames is compared with the middle one.
        """
        _, T, h, w, _ = latents_BTHWC.shape
        each, p = video_BTHWC.shape[1] // T, self.teacher.cfg.patch_size
        at = jax.random.permutation(key, T)[: self.frames or T]
        latents = jnp.take(latents_BTHWC, at, axis=1)
        images = jnp.take(video_BTHWC, at * each + each // 2, axis=1)
        size = (*images.shape[:2], h * p, w * p, images.shape[-1])
        images = jnp.clip(jax.image.resize(images, size, "bicubic"), -1, 1)
        want = jax.lax.stop_gradient(self.teacher.apply({"params": teacher}, images))
        got = self.projection().apply({"params": projection}, latents.astype(jnp.float32))
        return 1 - (_direction(got) * _direction(want)).sum(-1).mean()


def _direction(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.square(x).sum(-1, keepdims=True) + EPS)
