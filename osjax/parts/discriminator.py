"""The adversarial phase from config keys: what it adds to an autoencoder stage, a discriminator with an optimiser."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from osjax import models
from osjax.errors import UserError
from osjax.models.discriminator import DiscriminatorConfig
from osjax.parts.groups import group, refuse_all, to_dataclass
from osjax.parts.stage import over_steps
from osjax.training import gan, optimizer
from osjax.training.autoencoder import AutoencoderLosses
from osjax.training.optimizer import OptimizerConfig

REFUSED = ("image_weight", "alignment_weight")  # losses of the reconstruction phase alone
OF_STAGE = ("perceptual_loss_weight", "mse_weight", "logvar")  # `losses` has the first two, nothing sets the third
OF_AUTOENCODER = ("accumulate", "ema_decay", "freeze")  # the discriminator's optimiser follows it


def keys() -> ConfigDict:
    """The `adversary` group: weights and starts are the report's and the original's. disc_weight 0: no discriminator;
    the report's is 0.05."""
    cfg = group(gan.GanConfig, but=OF_STAGE, disc_weight=0.0)
    cfg.model = group(DiscriminatorConfig)
    cfg.optimizer = group(OptimizerConfig, but=OF_AUTOENCODER, lr=1e-4)
    return cfg


@dataclass(frozen=True)
class Phase:
    """The adversarial phase of a stage.

    losses: of both models. module, cfg: the discriminator. adam: its optimiser's settings.
    """

    losses: gan.GanConfig
    module: nn.Module
    cfg: DiscriminatorConfig
    adam: OptimizerConfig

    @property
    def tx(self) -> optax.GradientTransformation:
        """The discriminator's update rule."""
        return optimizer.make(self.adam)

    def init(self, seed: int) -> dict[str, Any]:
        """Fresh parameters of the discriminator, boxed."""
        return models.init_params(self.cfg, jax.random.fold_in(jax.random.key(seed), 1))


def of_keys(
    given: Mapping[str, Any], losses: AutoencoderLosses, accumulate: int, steps: int, dtype: np.dtype
) -> Phase | None:
    """The phase that an `adversary` group asks for; None where disc_weight is 0, in the reconstruction phase.

    given: values of the group `keys` makes. losses: the stage's. accumulate: of the autoencoder's optimiser, which the
    discriminator's follows. steps: of the stage. dtype: of the discriminator's computation. UserError for losses that
    the phase does not have.
    """
    key = "adversary"
    if not given["disc_weight"]:
        refuse_all(given, keys(), key, f"{key}.disc_weight is 0")
        return None
    for name in REFUSED:
        if getattr(losses, name):
            raise UserError(f"losses.{name} is of the reconstruction phase: set it to 0 where disc_weight is not")
    own = {name: value for name, value in given.items() if name not in ("model", "optimizer")}
    weights = {"perceptual_loss_weight": losses.perceptual_weight, "mse_weight": losses.mse_weight}
    both = replace(to_dataclass(gan.GanConfig, own, key), **weights)
    critic = to_dataclass(DiscriminatorConfig, given["model"], f"{key}.model")
    adam = over_steps(to_dataclass(OptimizerConfig, given["optimizer"], f"{key}.optimizer"), steps, f"{key}.optimizer")
    module = models.build(critic).clone(dtype=dtype)
    return Phase(both, module, critic, replace(adam, accumulate=accumulate))
