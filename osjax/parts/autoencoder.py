"""An autoencoder from config keys, for every verb that uses one: its model, its weights, what it was made from."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from osjax import models
from osjax.errors import UserError
from osjax.models.autoencoder import LatentScale
from osjax.parallel import rules, sharding
from osjax.parts import dtype, latent_scale, stored
from osjax.parts.groups import refuse, to_dataclass
from osjax.parts.place import Place
from osjax.sampling.autoencoder import Autoencoder
from osjax.weights import load
from osjax.weights.leaves import Leaves
from osjax.weights.rules import whole

SMALL = 2**16  # values of a parameter that goes into fingerprints


@dataclass(frozen=True)
class AutoencoderKeys:
    """An autoencoder from a file."""

    weights: str | None = None  # a weight file, or a folder with checkpoints
    family: str = "dcae"  # of `weights`: dcae, hunyuan or flux_ae
    config: Mapping[str, Any] = field(default_factory=dict)  # keys of its family's config; empty is the released one
    dtype: str = "float32"  # of its computation; or bfloat16. Parameters are float32


@dataclass(frozen=True)
class StageAutoencoderKeys(AutoencoderKeys):
    """The autoencoder of a stage of the video model."""

    stage: str | None = None  # an autoencoder stage of this run, instead of `weights`
    family: str = "hunyuan"
    at_once: int = 0  # clips of one device that are encoded at a time; 0: its whole batch

    def __post_init__(self):
        if self.at_once < 0:
            raise UserError("at_once is below 0: give a number of clips, or 0 for all", status=2)


@dataclass(frozen=True)
class AutoencoderPart:
    """An autoencoder that is known but not read: what it is, how it computes, and where its weights are.

    model: config of its family. dtype: of its computation. weights: a path, or None for those of `stage`, an
    autoencoder stage of the run.
    """

    model: Any
    dtype: np.dtype
    weights: str | None = None
    stage: str | None = None

    @property
    def module(self) -> nn.Module:
        """The flax module, computing in `dtype`."""
        return models.build(self.model).clone(dtype=self.dtype)


def of_keys(keys: AutoencoderKeys, key: str, stages: Mapping[str, Any] | None = None) -> AutoencoderPart:
    """The autoencoder that a group of keys stands for.

    key: the group's dotted name. stages: model configs of a run's autoencoder stages, by name; None where only files
    will do. UserError for a family, a dtype or a field that does not exist, and where not just one source is given.
    """
    computes = dtype.named(keys.dtype, f"{key}.dtype")
    stage = getattr(keys, "stage", None)
    if stages is not None and bool(stage) == bool(keys.weights):
        raise UserError(f"give one of {key}.stage, an autoencoder stage of this run, and {key}.weights", status=2)
    if stage:
        if stage not in stages:
            known = ", ".join(stages) or "none"
            raise UserError(f"{key}.stage {stage!r} is no autoencoder stage before this one: {known} is", status=2)
        refuse(keys, key, ("stage", "dtype", "at_once", "weights"), f"{key}.stage names the autoencoder")
        return AutoencoderPart(stages[stage], computes, stage=stage)
    return AutoencoderPart(model_config(keys.family, keys.config, key), computes, keys.weights)


def model_config(family: str, fields: Mapping[str, Any], key: str) -> Any:
    """The config of an autoencoder's family with some fields set. key: dotted name of the group that says so."""
    if family not in models.AUTOENCODERS:
        raise UserError(f"{key}.family is {family!r}: use one of {', '.join(models.AUTOENCODERS)}", status=2)
    return to_dataclass(models.config_class(family), fields, f"{key}.config")


def read(part: AutoencoderPart, place: Place | None, mesh: Mesh) -> Autoencoder:
    """The autoencoder with its parameters, float32, on a mesh.

    part: which one. place: of the run, for one of its stages; None for one of a file. UserError for weights that are
    not there or do not fit its config.
    """
    shardings = sharding.of_boxed(models.abstract_params(part.model), mesh, rules.AUTOENCODER)
    params = load.place(_leaves(part, place), shardings, jnp.float32)
    return Autoencoder(part.module, params, scale_of(part, place))


def unread(part: AutoencoderPart) -> Autoencoder:
    """The autoencoder of a file, whose parameters, float32, are read when they are first used."""
    params = stored.of_leaves(part.model, partial(_leaves, part, None), "float32")
    return Autoencoder(part.module, params, scale_of(part, None))


def check(part: AutoencoderPart) -> None:
    """UserError for a file that does not fit the config of the autoencoder `part`; its header alone is read."""
    if part.weights:
        _leaves(part, None)


def fingerprint(part: AutoencoderPart, place: Place | None) -> str:
    """What tells an autoencoder from others: its config, scale and smaller parameters, as 16 hex digits.

    part, place: as `read` takes them. Parameters of at most SMALL values are read.
    """
    leaves, scale = _leaves(part, place), scale_of(part, place)
    sums = hashlib.sha256(f"{part.model} {part.dtype}".encode())
    for numbers in (scale.scale, scale.shift):
        sums.update(np.asarray(numbers, np.float32).tobytes())
    for path, shape in sorted(leaves.shapes.items()):
        if prod(shape) <= SMALL:
            sums.update(f"{path}{shape}".encode() + np.asarray(leaves.read(path, whole(shape)), np.float32).tobytes())
    return sums.hexdigest()[:16]


def scale_of(part: AutoencoderPart, place: Place | None) -> LatentScale:
    """The further normalisation of an autoencoder's latents: what its stage measured, in this run or in the one whose
    checkpoints are its weights; none for one of a file.

    part, place: as `read` takes them.
    """
    if part.stage:
        return latent_scale.read(place.workdir / part.stage)
    path = Path(part.weights or "")
    near = (folder for folder in (path.parent, path.parent.parent) if path.is_dir())  # checkpoints, or one of them
    measured = next((folder for folder in near if (folder / latent_scale.FILE).is_file()), None)
    return latent_scale.read(measured) if measured else LatentScale()


def _leaves(part: AutoencoderPart, place: Place | None) -> Leaves:
    if part.stage:
        return load.of_checkpoint(place.of(part.stage))
    return load.open_leaves(part.model, part.weights)
