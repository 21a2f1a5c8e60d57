"""The config keys that stages of every kind have, and the checks that they share."""

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ml_collections import ConfigDict

from osjax import models
from osjax.errors import UserError
from osjax.parts.data import DataKeys
from osjax.parts.groups import refuse
from osjax.parts.start import StartKeys
from osjax.training.freeze import Freeze
from osjax.training.health import HealthConfig
from osjax.training.optimizer import OptimizerConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MeshKeys:
    """Sizes of the mesh axes; -1 takes the devices that are left."""

    data: int = -1  # copies of the model
    fsdp: int = 1  # devices that share the weights
    sequence: int = 1  # devices that share a sequence
    tensor: int = 1  # devices that share a layer
    fit: bool = False  # sizes that do not fit the devices that are there give way to the nearest that do


@dataclass(frozen=True)
class CheckpointKeys:
    """When checkpoints are written and which of them stay."""

    every: int = 0  # steps; 0: only at the end
    keep: int = 2  # the newest so many
    keep_every: int = 0  # steps whose multiples are kept for good; 0: none
    local_every: int = 0  # steps between checkpoints in local_checkpoints, on hosts' own disks; 0: none there
    local_keep: int = 2  # the newest so many there; one may be on some hosts alone when they are killed

    def __post_init__(self):
        if self.every < 0 or self.keep_every < 0 or self.keep < 1:
            raise UserError(
                f"every {self.every} and keep_every {self.keep_every} must be 0 or more, keep {self.keep} 1 or more"
            )
        if self.local_every < 0 or self.local_keep < 2:
            raise UserError(
                f"local_every {self.local_every} must be 0 or more, and local_keep {self.local_keep} 2 or more"
            )
        if not self.local_every:
            refuse(self, "checkpoint", ("every", "keep", "keep_every", "local_every"), "checkpoint.local_every is 0")
        elif self.every and self.local_every % self.every == 0:
            raise UserError(f"local_every {self.local_every} is only when every {self.every} is: give fewer steps")


@dataclass(frozen=True)
class HangKeys:
    """When a run that stands still ends for a restart, with exit status 75 and the stacks of its threads."""

    factor: float = 0.0  # median steps without a step; 0: never
    least_s: float = 600.0  # seconds that are always allowed

    def __post_init__(self):
        if self.factor < 0 or self.least_s < 0:
            raise UserError(f"factor {self.factor} and least_s {self.least_s} must be 0 or more")
        if not self.factor:
            refuse(self, "hang", ("factor",), "hang.factor is 0")


@dataclass(frozen=True)
class EvaluateKeys:
    """What is measured on held-out clips, and shown of a few texts, while a stage trains."""

    every: int = 0  # steps between losses on held-out batches; 0: never
    batches: int = 2
    prompts: tuple[str, ...] = ()  # texts to sample with the settings of `sample`, into workdir/samples/STAGE
    sample_every: int = 0  # steps between samples of the prompts, which need no held-out clips; 0: with the losses

    def __post_init__(self):
        if self.every < 0 or self.batches < 1 or self.sample_every < 0:
            raise UserError(
                f"every {self.every} and sample_every {self.sample_every} must be 0 or more, batches {self.batches} 1 "
                "or more"
            )
        if not self.prompts:
            refuse(self, "evaluate", ("every", "batches", "prompts"), "evaluate.prompts is empty")
        if not self.every:
            read = ("every", "sample_every", "prompts") if self.sample_every else ("every",)
            refuse(self, "evaluate", read, "evaluate.every is 0")

    @property
    def of_samples(self) -> int:
        """Steps between samples of the prompts; 0: never."""
        return (self.sample_every or self.every) if self.prompts else 0

    @property
    def steps(self) -> int:
        """Steps after which there may be something to do; 0: never."""
        return math.gcd(self.every, self.of_samples)


@dataclass(frozen=True)
class StageKeys:
    """What stages of every kind are told."""

    seed: int = 42
    steps: int = 0  # updates
    mesh: MeshKeys = MeshKeys()
    start: StartKeys = StartKeys()
    data: DataKeys = DataKeys()
    optimizer: OptimizerConfig = OptimizerConfig()
    freeze: Freeze = Freeze()
    checkpoint: CheckpointKeys = CheckpointKeys()
    health: HealthConfig = HealthConfig()
    hang: HangKeys = HangKeys()
    evaluate: EvaluateKeys = EvaluateKeys()


def check(keys: StageKeys) -> None:
    """UserError for keys of any stage that cannot work together, or that say nothing beside the others."""
    if keys.steps < 1:
        raise UserError(f"steps is {keys.steps}: give at least 1", status=2)
    if keys.seed < 0:
        raise UserError(f"seed is {keys.seed}: give 0 or more", status=2)
    health = keys.health
    if not health.spike_factor:
        read = ("max_skipped", "max_rollbacks", "spike_factor", "verify_every")
        refuse(health, "health", read, "health.spike_factor is 0")
    check_optimizer(keys.optimizer, "optimizer")


def check_optimizer(keys: OptimizerConfig, key: str) -> None:
    """UserError for keys of an optimiser that its schedule does not read. key: the group's dotted name."""
    everything = set(OptimizerConfig.__dataclass_fields__)
    if keys.schedule != "cosine":
        refuse(keys, key, everything - {"decay_steps", "final_lr_ratio"}, f"{key}.schedule is {keys.schedule}")
    if not keys.warmup_steps:
        refuse(keys, key, everything - {"initial_lr"}, f"{key}.warmup_steps is 0")


def optimizer_of(keys: StageKeys, model_cfg: Any) -> OptimizerConfig:
    """The optimiser of a stage, with what is frozen.

    keys: of the stage. model_cfg: of the model that it trains. UserError for patterns that fit no parameter of it.
    """
    if keys.freeze.params:
        keys.freeze.trained(models.abstract_params(model_cfg))
    else:
        refuse(keys.freeze, "freeze", ("params",), "freeze.params is empty")
    return replace(over_steps(keys.optimizer, keys.steps, "optimizer"), freeze=keys.freeze)


def over_steps(keys: OptimizerConfig, steps: int, key: str) -> OptimizerConfig:
    """The optimiser of a stage of so many steps: a cosine without decay_steps ends with the stage.

    keys: the group. key: its dotted name. The log warns of a rate that never comes down, or has long done so, by the
    stage's end. UserError where the warm-up is longer than the stage.
    """
    if keys.schedule != "cosine":
        return keys
    if not keys.decay_steps:
        if steps <= keys.warmup_steps:
            raise UserError(f"{key}.warmup_steps is {keys.warmup_steps} of {steps} steps: give fewer", status=2)
        return replace(keys, decay_steps=steps)
    told = f"{key}.decay_steps", keys.decay_steps, steps
    if keys.decay_steps > steps:
        log.warning("%s is %d of %d steps, so the rate never comes down: 0 means all", *told)
    elif 2 * keys.decay_steps < steps:
        log.warning("%s is %d of %d steps, so most are at the lowest rate: 0 means all", *told)
    return keys


def plain(cfg: ConfigDict) -> dict[str, Any]:
    """A config as JSON values, as checkpoints keep it."""
    return json.loads(cfg.to_json_best_effort())


def autoencoders(before: Mapping[str, Any]) -> dict[str, Any]:
    """Model configs of the autoencoder stages among a run's stages, by name."""
    return {name: stage.model for name, stage in before.items() if stage.kind == "autoencoder"}
