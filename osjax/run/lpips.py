"""LPIPS for stages of autoencoders: the published weights from the user's files, or features that nobody trained."""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from osjax import models
from osjax.errors import UserError
from osjax.models.lpips import LPIPSConfig
from osjax.run.config import to_dataclass
from osjax.weights import load


@dataclass(frozen=True)
class Distance:
    """module: `models.lpips.LPIPS`. weights: a file or folder; None for features of random kernels."""

    module: nn.Module
    cfg: LPIPSConfig
    weights: str | None

    @property
    def name(self) -> str:
        """Of its held-out figures: one by untrained features does not compare with any other."""
        return "eval_lpips" if self.weights else "eval_lpips_untrained"

    def blank(self) -> Any:
        """Parameters of zeros, boxed with their logical names: what a fresh state has until they are read."""
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), models.abstract_params(self.cfg))

    def read(self, shardings: Any) -> Any:
        """The parameters by their shardings."""
        if self.weights:
            return load.place(load.open_leaves(self.cfg, self.weights), shardings, jnp.float32)
        make = jax.jit(lambda: nn.unbox(models.init_params(self.cfg, jax.random.key(0))), out_shardings=shardings)
        return make()


def of_config(cfg: ConfigDict, needed: bool, dtype: Any, remat: bool) -> Distance | None:
    """The distance that an `lpips` group asks for, None where it asks for none. UserError where one is `needed`."""
    if cfg.weights and cfg.untrained:
        raise UserError("give one of lpips.weights and lpips.untrained", status=2)
    if not (cfg.weights or cfg.untrained):
        if needed:
            raise UserError(
                "losses.perceptual_weight needs LPIPS: give lpips.weights, a file or a folder with vgg.pth and "
                "vgg16-397923af.pth, or set losses.perceptual_weight to 0",
                status=2,
            )
        return None
    lpips_cfg = to_dataclass(LPIPSConfig, cfg.config, "lpips.config")
    module = models.build(lpips_cfg).clone(dtype=dtype, remat=remat)
    return Distance(module, lpips_cfg, cfg.weights)
