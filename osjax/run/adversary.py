"""What the adversarial phase of an autoencoder stage adds: a discriminator with an optimiser of its own."""

from dataclasses import dataclass, replace
from typing import Any

import flax.linen as nn
import jax
import optax
from ml_collections import ConfigDict

from osjax import models
from osjax.errors import UserError
from osjax.models.discriminator import DiscriminatorConfig
from osjax.run.config import to_dataclass
from osjax.training import gan, optimizer
from osjax.training.autoencoder import AutoencoderLosses
from osjax.training.optimizer import OptimizerConfig

REFUSED = ("image_weight", "alignment_weight")  # losses of the reconstruction phase alone


@dataclass(frozen=True)
class Phase:
    """losses: of both models. module, cfg: the discriminator. adam: its optimiser's settings."""

    losses: gan.GanConfig
    module: nn.Module
    cfg: DiscriminatorConfig
    adam: OptimizerConfig

    @property
    def tx(self) -> optax.GradientTransformation:
        return optimizer.make(self.adam)

    def init(self, seed: int) -> Any:
        """Fresh parameters of the discriminator, boxed."""
        return models.init_params(self.cfg, jax.random.fold_in(jax.random.key(seed), 1))


def of_config(cfg: ConfigDict, losses: AutoencoderLosses, accumulate: int, dtype: Any) -> Phase | None:
    """The phase that an `adversary` group asks for; None where disc_weight is 0, in the reconstruction phase.

    losses: the stage's. accumulate: of the autoencoder's optimiser, which the discriminator's follows.
    """
    if not cfg.disc_weight:
        return None
    for name in REFUSED:
        if getattr(losses, name):
            raise UserError(f"losses.{name} is of the reconstruction phase: set it to 0 where disc_weight is not")
    own = {key: value for key, value in cfg.items() if key not in ("model", "optimizer")}
    found = to_dataclass(gan.GanConfig, own, "adversary")
    weights = {"perceptual_loss_weight": losses.perceptual_weight, "mse_weight": losses.mse_weight}
    critic = to_dataclass(DiscriminatorConfig, cfg.model, "adversary.model")
    adam = to_dataclass(OptimizerConfig, cfg.optimizer, "adversary.optimizer")
    module = models.build(critic).clone(dtype=dtype)
    return Phase(replace(found, **weights), module, critic, replace(adam, accumulate=accumulate))
