"""A stage of an autoencoder from its config keys, reconstruction or adversarial, checked without data or weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
from jax.sharding import AbstractMesh, Mesh
from ml_collections import ConfigDict

from osjax.data.buckets import Buckets
from osjax.errors import Gathered, UserError
from osjax.parts import autoencoder, buckets, data, dinov2, discriminator, dtype, lpips, stage, start
from osjax.parts.dinov2 import DINOv2Keys, Teacher
from osjax.parts.discriminator import Phase
from osjax.parts.groups import group, refuse, to_dataclass
from osjax.parts.lpips import Distance, LPIPSKeys
from osjax.parts.stage import StageKeys
from osjax.training.autoencoder import AutoencoderLosses
from osjax.training.optimizer import OptimizerConfig


@dataclass(frozen=True)
class LatentStatisticsKeys:
    """On what scale and shift of the latents are measured when the stage is finished."""

    clips: int = 0  # measure on so many; 0: none
    resolution: str = ""  # of `data.buckets`; empty: the first one

    def __post_init__(self):
        if self.clips < 0:
            raise UserError(f"clips is {self.clips}: give 0 or more")
        if not self.clips:
            refuse(self, "latent_statistics", ("clips",), "latent_statistics.clips is 0")


@dataclass(frozen=True)
class AutoencoderStageKeys(StageKeys):
    """What a stage of an autoencoder is told."""

    kind: str = "autoencoder"
    family: str = "dcae"
    model: Mapping[str, Any] = field(default_factory=dict)  # keys of the family's config; empty is the released one
    dtype: str = "float32"  # of the computation; or bfloat16. Parameters are float32
    remat: bool = False  # recompute every level's activations in the backward pass
    losses: AutoencoderLosses = AutoencoderLosses()
    lpips: LPIPSKeys = LPIPSKeys()
    adversary: Mapping[str, Any] = field(default_factory=dict)  # see discriminator.py
    dinov2: DINOv2Keys = DINOv2Keys()
    latent_statistics: LatentStatisticsKeys = LatentStatisticsKeys()


def keys() -> ConfigDict:
    """The keys of a stage of an autoencoder, for config files to change."""
    cfg = group(AutoencoderStageKeys)
    cfg.adversary = discriminator.keys()
    del cfg.optimizer["freeze"]  # a group of its own
    return cfg


@dataclass(frozen=True)
class AutoencoderRecipe:
    """A stage of an autoencoder, checked.

    keys: as they were given; what became of a group of them stands beside. model: config of its family. module: as
    training runs it. distance, teacher, phase: LPIPS, DINOv2 and the adversarial phase, each None where not asked for.
    measured: (frames, height, width) of the clips whose latents are measured at the end, or None. saved: the keys as
    JSON, for checkpoints.
    """

    name: str
    keys: AutoencoderStageKeys
    mesh: Mesh | AbstractMesh
    model: Any
    module: nn.Module
    distance: Distance | None
    teacher: Teacher | None
    phase: Phase | None
    table: Buckets
    optimizer: OptimizerConfig
    measured: tuple[int, int, int] | None
    saved: Mapping[str, Any]
    kind: str = "autoencoder"
    adapters: None = None
    taught: None = None


def recipe(
    name: str, cfg: ConfigDict, before: Mapping[str, Any], make_mesh: Callable[..., Mesh | AbstractMesh]
) -> AutoencoderRecipe:
    """The recipe of a stage. UserError for all that cannot work.

    name: of the stage. cfg: its keys. before: recipes of the run's stages before it. make_mesh: takes sizes of axes.
    """
    given = to_dataclass(AutoencoderStageKeys, cfg, "")
    problems = Gathered()
    with problems:
        stage.check(given)
    with problems:
        start.check(given.start, before, "autoencoder")
    with problems:
        data.check(given.data, "autoencoder", evaluates=given.evaluate.every > 0)
    with problems:
        if given.evaluate.prompts:
            raise UserError("evaluate.prompts are for stages of the video model: an autoencoder takes no text")
    with problems:
        mesh = make_mesh(**vars(given.mesh))
    with problems:
        computes = dtype.named(given.dtype, "dtype")
        part = autoencoder.AutoencoderPart(autoencoder.model_config(given.family, given.model, "model"), computes)
    problems.end()
    module = part.module.clone(remat=given.remat) if given.remat else part.module
    with problems:
        adam = stage.optimizer_of(given, part.model)
        phase = discriminator.of_keys(given.adversary, given.losses, adam.accumulate, given.steps, computes)
    with problems:
        needed = bool(given.losses.perceptual_weight)
        distance = lpips.of_keys(given.lpips, needed, computes, given.remat)
    with problems:
        teacher = dinov2.of_keys(given.dinov2, given.losses.alignment_weight, getattr(part.model, "encoder", None))
    with problems:
        rows = given.data.buckets, given.data.batch_per_device, given.data.fps_max
        table = buckets.table(*rows, module.stride.space, mesh)
        for _, T, H, W, _ in table.every_shape():
            module.latent_shape(T, H, W)
        measured = _measured(given.latent_statistics, table)
    problems.end()
    parts = distance, teacher, phase, table, adam, measured
    return AutoencoderRecipe(name, given, mesh, part.model, module, *parts, stage.plain(cfg))


def _measured(asked: LatentStatisticsKeys, table: Buckets) -> tuple[int, int, int] | None:
    """(frames, height, width) of the first video bucket of a resolution, or of all where none is asked for."""
    if not asked.clips:
        return None
    shapes = [
        (frames, *size)
        for name, by_frames in table.rules.items()
        if name == (asked.resolution or name)
        for frames in by_frames
        for size in table.tables[name].values()
    ]
    square = [shape for shape in shapes if shape[1] == shape[2]]
    if not shapes:
        raise UserError(f"latent_statistics.resolution {asked.resolution!r} is no resolution of data.buckets", status=2)
    return (square or shapes)[0]
