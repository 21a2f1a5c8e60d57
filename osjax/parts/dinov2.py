"""DINOv2 from config keys, as the teacher of an autoencoder stage's latents."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from osjax import models
from osjax.errors import UserError
from osjax.models.dcae.config import EncoderConfig
from osjax.models.dinov2 import DINOv2Config
from osjax.parts.groups import refuse, to_dataclass
from osjax.training.distillation import Distillation
from osjax.types import NamedTree
from osjax.weights import load


@dataclass(frozen=True)
class DINOv2Keys:
    """The `dinov2` group of an autoencoder stage."""

    weights: str | None = None  # a published file, such as dinov2_vitb14_pretrain.pth
    config: Mapping[str, Any] = field(default_factory=dict)  # keys of its config; empty is ViT-B/14
    level: int = 3  # of the encoder, counted from 1, whose output is aligned
    frames: int = 4  # latent frames of each clip, drawn anew every step; 0: all


@dataclass(frozen=True)
class Teacher:
    """A frozen DINOv2 and how a stage learns from it.

    teaching: what the step does with it. cfg: of the model. width: channels of the latents. weights: a file with
    published names.
    """

    teaching: Distillation
    cfg: DINOv2Config
    width: int
    weights: str

    def blank(self) -> dict[str, Any]:
        """Parameters of zeros, boxed with their logical names: what a fresh state has until they are read."""
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), models.abstract_params(self.cfg))

    def read(self, shardings: NamedTree) -> dict[str, Any]:
        """The parameters by their shardings."""
        return load.place(load.open_leaves(self.cfg, self.weights), shardings, jnp.float32)

    def projection(self, seed: int) -> dict[str, Any]:
        """Fresh parameters of the projection, boxed."""
        key = jax.random.fold_in(jax.random.key(seed), 2)
        return self.teaching.projection().init(key, jnp.zeros((1, self.width)))["params"]


def of_keys(keys: DINOv2Keys, weight: float, encoder: EncoderConfig | None, key: str = "dinov2") -> Teacher | None:
    """The teacher that a group of keys names; None where nothing learns from it.

    weight: of the alignment loss. encoder: of the autoencoder that learns. UserError for an autoencoder without such
    levels, and where there are no weights.
    """
    if not weight:
        refuse(keys, key, (), "losses.alignment_weight is 0")
        return None
    if not isinstance(encoder, EncoderConfig):
        raise UserError("losses.alignment_weight is for the DC-AE: set it to 0", status=2)
    if not keys.weights:
        raise UserError(
            f"losses.alignment_weight needs DINOv2: give {key}.weights, such as dinov2_vitb14_pretrain.pth, or set "
            "losses.alignment_weight to 0",
            status=2,
        )
    first, last = (1 if encoder.depth_list[0] else 2), len(encoder.width_list)
    if not first <= keys.level <= last:
        raise UserError(f"{key}.level is {keys.level}: the encoder has levels {first} to {last}", status=2)
    if keys.frames < 0:
        raise UserError(f"{key}.frames is {keys.frames}: give a number of latent frames, or 0 for all", status=2)
    dino = to_dataclass(DINOv2Config, keys.config, f"{key}.config")
    width = encoder.width_list[min(keys.level, last - 1)]  # of the next level, which the downsampling makes
    return Teacher(Distillation(models.build(dino), keys.level, keys.frames), dino, width, keys.weights)
