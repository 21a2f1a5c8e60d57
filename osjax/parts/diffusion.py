"""A stage of the video model from its config keys: all that can be checked without data or weights is checked here.

Training makes it for the devices that are there, `osjax plan` for those of a target: both refuse the same.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jax.sharding import AbstractMesh, Mesh
from ml_collections import ConfigDict

from osjax import models
from osjax.conditioning import modes
from osjax.data.buckets import Buckets
from osjax.errors import Gathered, UserError
from osjax.models.lora import LoRAConfig
from osjax.models.velocity import VideoConfig
from osjax.parts import autoencoder, buckets, data, lora, stage, start, text, video_model
from osjax.parts import distill as lessons
from osjax.parts.autoencoder import AutoencoderPart, StageAutoencoderKeys
from osjax.parts.distill import DistillKeys, Taught
from osjax.parts.groups import group, located, to_dataclass
from osjax.parts.lora import LoRAKeys
from osjax.parts.stage import StageKeys
from osjax.parts.text import TextKeys, TextPart
from osjax.parts.video_model import check_kernel
from osjax.sampling.settings import SampleSettings
from osjax.training.optimizer import OptimizerConfig


@dataclass(frozen=True)
class DropoutKeys:
    """Probabilities of leaving a text out, drawn independently; the original's."""

    t5: float = 0.31622777
    clip: float = 0.31622777

    def __post_init__(self):
        if not (0 <= self.t5 <= 1 and 0 <= self.clip <= 1):
            raise UserError(f"t5 {self.t5} and clip {self.clip} must be probabilities, from 0 to 1")


@dataclass(frozen=True)
class DiffusionKeys(StageKeys):
    """What a stage of the video model is told."""

    kind: str = "diffusion"
    family: str = "mmdit"  # of the video model
    model: Mapping[str, Any] = field(
        default_factory=dict
    )  # of the family's config; attention auto: what the devices have
    loss_on_given: bool = True  # False: a lone frame that is given at an end of a clip adds nothing to the loss
    shift: float | None = None  # of the times that are drawn, 1 or more towards noise; none: what sizes imply
    guidance: float = 4.0  # what a model with guidance_embed is told while it trains
    autoencoder: StageAutoencoderKeys = StageAutoencoderKeys()
    lora: LoRAKeys = LoRAKeys()
    distill: DistillKeys = DistillKeys()
    text: TextKeys = TextKeys()
    text_dropout: DropoutKeys = DropoutKeys()
    modes: Mapping[str, float] = field(default_factory=lambda: {"t2v": 1.0})  # condition modes with their weights
    sample: Mapping[str, Any] = field(default_factory=dict)  # settings that `osjax sample` takes as defaults


def keys(family: str = "mmdit") -> ConfigDict:
    """The keys of a stage of the video model, for config files to change. family: of the model."""
    cfg = group(DiffusionKeys, family=family)
    cfg.model = group(models.config_class(family), dtype="bfloat16")
    del cfg.optimizer["freeze"]  # a group of its own
    return cfg


@dataclass(frozen=True)
class DiffusionRecipe:
    """A stage of the video model, checked.

    keys: as they were given; what became of a group of them stands beside. mesh: of the stage's devices. model: config
    of the video model. table: its buckets. adapters: what is trained instead of the model, or None. saved: the keys as
    JSON, for checkpoints. taught: what it learns of a teacher, or None.
    """

    name: str
    keys: DiffusionKeys
    mesh: Mesh | AbstractMesh
    model: VideoConfig
    autoencoder: AutoencoderPart
    text: TextPart
    table: Buckets
    optimizer: OptimizerConfig
    adapters: LoRAConfig | None
    saved: Mapping[str, Any]
    taught: Taught | None = None
    kind: str = "diffusion"


def recipe(
    name: str, cfg: ConfigDict, before: Mapping[str, Any], make_mesh: Callable[..., Mesh | AbstractMesh]
) -> DiffusionRecipe:
    """The recipe of a stage. UserError for all that cannot work, in the words that every verb uses.

    name: of the stage. cfg: its keys. before: recipes of the run's stages before it. make_mesh: takes sizes of axes.
    """
    given = to_dataclass(DiffusionKeys, cfg, "")
    problems, mesh = Gathered(), None
    with problems:
        stage.check(given)
    with problems:
        start.check(given.start, before, "diffusion")
    with problems:
        data.check(given.data, "diffusion", evaluates=given.evaluate.every > 0)
    with problems:
        mesh = make_mesh(**vars(given.mesh))
    with problems:
        model = video_model.resolved(given.family, given.model, "model", mesh)
        check_kernel(model, "model")
    with problems:
        part = autoencoder.of_keys(given.autoencoder, "autoencoder", stage.autoencoders(before))
    with problems:
        words = text.of_keys(given.text)
    problems.end()
    with problems:
        multiple = part.module.stride.space * model.inputs.patch
        rows, aspects = buckets.chosen(given.data, part.module.stride, multiple)
        split = given.data.batch_per_device, given.data.fps_max
        table = buckets.table(rows, *split, multiple, mesh, aspects=aspects)
        _check_sizes(given, model, part, table)
    with problems:
        adam = stage.optimizer_of(given, model)
    with problems:
        adapters = lora.of_keys(given.lora, model)
        _check_adapters(given, adapters, before)
    with problems:
        _check_told(given, model, words)
    with problems:
        taught = lessons.of_keys(given.distill, model, _begins(given), given.sample.get("alpha"))
        if given.lora.rank and taught is not None and taught.teacher != model:
            raise UserError("distill.what guidance trains new layers, which adapters are not: leave lora.rank at 0")
    problems.end()
    return DiffusionRecipe(name, given, mesh, model, part, words, table, adam, adapters, stage.plain(cfg), taught)


def _begins(given: DiffusionKeys) -> bool:
    return bool(given.start.stage or given.start.weights)


def _check_told(given: DiffusionKeys, model: VideoConfig, words: TextPart) -> None:
    """UserError where the model is told something else than its stage has to say."""
    inputs = model.inputs
    if words.own and words.own.width not in {inputs.text_channels} & {inputs.pooled_channels}:
        raise UserError(
            f"model.context_in_dim and model.vec_in_dim must be the text encoder's width {words.own.width} "
            f"(text.width), not {inputs.text_channels} and {inputs.pooled_channels}",
            status=2,
        )
    others = [mode for mode, weight in given.modes.items() if weight and mode != "t2v"]
    if others and not inputs.condition:
        raise UserError(f"modes.{others[0]} gives the model a condition: set model.cond_embed, or its weight to 0")
    if not given.loss_on_given and not others:
        raise UserError("loss_on_given is off, but no mode gives the model a frame: leave it on, or set modes")
    if not inputs.guidance and given.guidance != DiffusionKeys.guidance:
        raise UserError("guidance is for a model with guidance_embed: leave it out, or set model.guidance_embed")
    if given.shift is not None and not 0 < given.shift < math.inf:
        raise UserError(f"shift is {given.shift}: give a positive one, or none to follow size and duration")
    if not given.guidance >= 0:
        raise UserError(f"guidance is {given.guidance}: give 0 or more")


def _check_adapters(given: DiffusionKeys, adapters: LoRAConfig | None, before: Mapping[str, Any]) -> None:
    begin = given.start
    if begin.stage and before[begin.stage].kind == "diffusion" and before[begin.stage].adapters:
        raise UserError(f"start.stage {begin.stage!r} trained adapters: start from its model, with lora.start")
    if adapters is not None and not _begins(given):
        raise UserError("lora adapts a trained model: give one of start.stage and start.weights", status=2)
    if adapters is not None and given.freeze.params:
        raise UserError("lora freezes the whole model: leave freeze.params empty, choose lora.targets", status=2)


def _check_sizes(given: DiffusionKeys, model: VideoConfig, part: AutoencoderPart, table: Buckets) -> None:
    module, stride = part.module, part.module.stride
    for _, T, H, W, _ in table.every_shape():  # also names sizes that the stride does not divide
        latent = module.latent_shape(T, H, W)
        check_latent(model, (*latent, part.model.latent_channels))
        modes.usable_weights(dict(given.modes), latent[0], stride.causal, stride.time)
    sample = to_dataclass(SampleSettings, given.sample, "sample")
    if sample.height and sample.width:
        module.latent_shape(sample.frames, sample.height, sample.width)


def check_latent(model: VideoConfig, latent: tuple[int, int, int, int]) -> None:
    """UserError, naming the config key, where a video model does not take latents of this shape (T, H, W, C)."""
    try:
        model.check_latent(*latent)
    except UserError as error:
        raise UserError(located(str(error), "model", vars(model)), status=2) from error
