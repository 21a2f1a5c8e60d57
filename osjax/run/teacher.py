"""DINOv2 as the teacher of an autoencoder stage's latents."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from osjax import models
from osjax.errors import UserError
from osjax.models.dcae.config import EncoderConfig
from osjax.models.dinov2 import DINOv2Config
from osjax.run.config import to_dataclass
from osjax.training.distillation import Distillation
from osjax.weights import load


@dataclass(frozen=True)
class Teacher:
    """teaching: what the step does with it. width: channels of the latents. weights: a file with published names."""

    teaching: Distillation
    cfg: DINOv2Config
    width: int
    weights: str

    def blank(self) -> Any:
        """Parameters of zeros, boxed with their logical names: what a fresh state has until they are read."""
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), models.abstract_params(self.cfg))

    def read(self, shardings: Any) -> Any:
        return load.place(load.open_leaves(self.cfg, self.weights), shardings, jnp.float32)

    def projection(self, seed: int) -> Any:
        """Fresh parameters of the projection, boxed."""
        key = jax.random.fold_in(jax.random.key(seed), 2)
        return self.teaching.projection().init(key, jnp.zeros((1, self.width)))["params"]


def of_config(cfg: ConfigDict, encoder: EncoderConfig) -> Teacher:
    """The teacher that a `dinov2` group names, of an encoder like this one."""
    if not isinstance(encoder, EncoderConfig):
        raise UserError("losses.alignment_weight is for the DC-AE: set it to 0", status=2)
    if not cfg.weights:
        raise UserError(
            "losses.alignment_weight needs DINOv2: give dinov2.weights, such as dinov2_vitb14_pretrain.pth, or set "
            "losses.alignment_weight to 0",
            status=2,
        )
    first, last = (1 if encoder.depth_list[0] else 2), len(encoder.width_list)
    if not first <= cfg.level <= last:
        raise UserError(f"dinov2.level is {cfg.level}: the encoder has levels {first} to {last}", status=2)
    dino = to_dataclass(DINOv2Config, cfg.config, "dinov2.config")
    width = encoder.width_list[min(cfg.level, last - 1)]  # of the next level, which the downsampling makes
    return Teacher(Distillation(models.build(dino), cfg.level, cfg.frames), dino, width, cfg.weights)
