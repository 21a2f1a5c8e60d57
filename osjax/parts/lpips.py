"""LPIPS from config keys: the published weights from the user's files, or features that nobody trained."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from osjax import models
from osjax.errors import UserError
from osjax.models.lpips import LPIPSConfig
from osjax.parts.groups import refuse, to_dataclass
from osjax.types import NamedTree
from osjax.weights import load


@dataclass(frozen=True)
class LPIPSKeys:
    """The `lpips` group of an autoencoder stage."""

    weights: str | None = None  # a file or checkpoint, or a folder with vgg.pth and vgg16-397923af.pth
    untrained: bool = False  # random kernels instead: a distance like LPIPS, to compare runs with, no LPIPS
    config: Mapping[str, Any] = field(default_factory=dict)  # keys of its config; empty is the published one


@dataclass(frozen=True)
class Distance:
    """A perceptual distance.

    module: `models.lpips.LPIPS`. weights: a file or folder; None for features of random kernels.
    """

    module: nn.Module
    cfg: LPIPSConfig
    weights: str | None

    @property
    def name(self) -> str:
        """The name of its held-out figures: one by untrained features does not compare with any other."""
        return "eval_lpips" if self.weights else "eval_lpips_untrained"

    def blank(self) -> dict[str, Any]:
        """Parameters of zeros, boxed with their logical names: what a fresh state has until they are read."""
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), models.abstract_params(self.cfg))

    def read(self, shardings: NamedTree) -> dict[str, Any]:
        """The parameters by their shardings."""
        if self.weights:
            return load.place(load.open_leaves(self.cfg, self.weights), shardings, jnp.float32)
        make = jax.jit(lambda: nn.unbox(models.init_params(self.cfg, jax.random.key(0))), out_shardings=shardings)
        return make()


def of_keys(keys: LPIPSKeys, needed: bool, dtype: np.dtype, remat: bool, key: str = "lpips") -> Distance | None:
    """The distance that a group of keys asks for, None where it asks for none.

    needed: whether a loss takes it; UserError where it is and there is none. dtype: of its computation. remat: compute
    activations again in the backward pass.
    """
    if keys.weights and keys.untrained:
        raise UserError(f"give one of {key}.weights and {key}.untrained", status=2)
    if not (keys.weights or keys.untrained):
        if needed:
            raise UserError(
                f"losses.perceptual_weight needs LPIPS: give {key}.weights, a file or a folder with vgg.pth and "
                "vgg16-397923af.pth, or set losses.perceptual_weight to 0",
                status=2,
            )
        refuse(keys, key, (), f"neither {key}.weights nor {key}.untrained is given")
        return None
    cfg = to_dataclass(LPIPSConfig, keys.config, f"{key}.config")
    return Distance(models.build(cfg).clone(dtype=dtype, remat=remat), cfg, keys.weights)
