"""A video model from config keys, for every verb that reads one from a file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
from jax.sharding import AbstractMesh, Mesh

from osjax import models, weights
from osjax.errors import UserError
from osjax.models.mmdit.config import MMDiTConfig
from osjax.models.velocity import VideoConfig
from osjax.parts import dtype, stored
from osjax.parts.groups import refuse, to_dataclass
from osjax.sampling import workdir
from osjax.sampling.placement import Stored
from osjax.weights import adapters, load
from osjax.weights.layout import Layout
from osjax.weights.leaves import Leaves
from osjax.weights.lora_merge import merged

SPLIT = ("ring", "ulysses", "ulysses_ring")  # attention that has a kernel inside


@dataclass(frozen=True)
class VideoModelKeys:
    """A video model from a file with the original's names, or from a folder of checkpoints."""

    weights: str | None = None  # .safetensors
    family: str = "mmdit"
    layout: str = "open_sora_v2"  # of attention weights in the file: open_sora_v2, flux or flux_diffusers
    config: Mapping[str, Any] = field(default_factory=dict)  # keys of its family's config; empty is the 11B video model
    adapter: str | None = None  # LoRA: .safetensors, a folder of peft, a run that trained one, or its checkpoints
    adapter_strength: float = 1.0  # how much of its change is made; above 1: more than it was trained for
    adapters: tuple = ()  # more of them, rows (path, strength), added one after the other

    @property
    def added(self) -> tuple[tuple[str, float], ...]:
        """All adapters as rows (path, strength)."""
        first = ((self.adapter, self.adapter_strength),) if self.adapter else ()
        return (*first, *((str(path), float(strength)) for path, strength in self.adapters))


def model_config(family: str, fields: Mapping[str, Any], key: str, of_family: str = "family") -> VideoConfig:
    """The config of a video model's family with some fields set.

    key, of_family: dotted names of the group with the fields and of the key that names the family, for UserErrors.
    """
    if family not in models.VIDEO_MODELS:
        raise UserError(f"{of_family} is {family!r}: use one of {', '.join(models.VIDEO_MODELS)}", status=2)
    return to_dataclass(models.config_class(family), fields, key)


def of_keys(
    keys: VideoModelKeys, key: str, computes: str, attention: str, platform: str, sequence: int = 1
) -> tuple[nn.Module, Stored]:
    """The module of a group of keys and its parameters, which are read when they are first used.

    key: the group's dotted name. computes: "float32" or "bfloat16", of weights and computation. attention: one by name,
    or "auto". platform: of the devices, such as "cpu" or "gpu". sequence: how many of them share a sequence. UserError
    for a file that is not there.
    """
    layout = weights.layout_named(keys.layout, f"config key {key}.layout")
    dtype.named(computes, "config key dtype")
    check_adapter(keys, key)
    require(keys.weights, f"{key}.weights")
    fields = {**keys.config, "dtype": computes}
    if attention != "auto":
        fields["attention"] = attention
    elif "attention" not in fields:
        heads = getattr(model_config(keys.family, fields, f"{key}.config", f"{key}.family"), "num_heads", 1)
        fields |= automatic_attention(platform, sequence, heads)
    cfg = model_config(keys.family, fields, f"{key}.config", f"{key}.family")
    open_base = partial(load.open_leaves, cfg, keys.weights, layout=layout)
    return models.build(cfg), stored.of_leaves(cfg, adapted(open_base, cfg, keys, layout), computes)


def automatic_attention(platform: str, sequence: int = 1, heads: int = 1) -> dict[str, str]:
    """The fields of a model's attention where none is asked for.

    platform: of the devices; flash on GPU and TPU, blockwise on a CPU. sequence: devices that share one; with several
    Ulysses, or with a ring around it where the heads do not divide. heads: of the model.
    """
    kernel = "blockwise" if platform == "cpu" else "flash"
    if sequence == 1:
        return {"attention": kernel}
    return {"attention": "ulysses" if heads % sequence == 0 else "ulysses_ring", "attention_kernel": kernel}


def suited(cfg: VideoConfig, platform: str, sequence: int) -> VideoConfig:
    """The config of a trained model with its own attention, or where that cannot run here the devices' automatic one.

    cfg: as it was trained, perhaps on other devices. platform, sequence: see `automatic_attention`.
    """
    if not isinstance(cfg, MMDiTConfig):
        return cfg
    split = cfg.attention in SPLIT
    kernel = cfg.attention_kernel if split else cfg.attention
    if split == (sequence > 1) and not (kernel == "flash" and platform == "cpu"):
        return cfg
    return replace(cfg, **automatic_attention(platform, sequence, cfg.num_heads))


def resolved(
    family: str, fields: Mapping[str, Any], key: str, mesh: Mesh | AbstractMesh | None, of_family: str = "family"
) -> VideoConfig:
    """The config of a video model, with the attention that suits the devices where its fields say `auto`.

    family, fields, key, of_family: see `model_config`. mesh: of the devices, one of a plan's is of GPUs; None: of one
    GPU.
    """
    if fields.get("attention") != "auto":
        return model_config(family, fields, key, of_family)
    fields = {name: value for name, value in fields.items() if name != "attention"}
    platform = mesh.devices.flat[0].platform if isinstance(mesh, Mesh) else "gpu"
    sequence = 1 if mesh is None else mesh.shape["sequence"]
    heads = getattr(model_config(family, fields, key, of_family), "num_heads", 1)
    return model_config(family, {**fields, **automatic_attention(platform, sequence, heads)}, key, of_family)


def adapted(
    open_base: Callable[[], Leaves], cfg: MMDiTConfig, keys: VideoModelKeys, layout: Layout
) -> Callable[[], Leaves]:
    """What opens the leaves of a model, with the adapters that a group of keys adds to them.

    open_base: opens those of the model alone. cfg: of the model. layout: of adapters in files.
    """

    def open_leaves() -> Leaves:
        leaves = open_base()
        for path, strength in keys.added:
            given = adapters.read(checkpoints_of(path), cfg, layout)
            if strength:  # adding zero would turn -0 to 0
                leaves = merged(leaves, given, strength)
        return leaves

    return open_leaves


def checkpoints_of(path: str) -> Path:
    """Where adapters lie: in the run at `path`, in its checkpoints, or at `path` itself."""
    if not (Path(path) / workdir.FILE).is_file():
        return Path(path)
    trained = workdir.read(path).denoiser
    if trained is None or trained.adapter is None:
        raise UserError(f"the run in {path} trained a whole model and no adapters: sample with --workdir={path}")
    return Path(path) / trained.adapter


def check_adapter(keys: VideoModelKeys, key: str) -> None:
    """UserError for adapters that are not there, and for a strength without adapters. key: the group's dotted name."""
    try:
        rows = keys.added
    except (TypeError, ValueError) as error:
        raise UserError(f"{key}.adapters {keys.adapters!r} is no list of rows (path, strength)", status=2) from error
    for path, _ in rows:
        name = f"{key}.adapter" if path == keys.adapter else f"{key}.adapters"
        require(path, name, "LoRA: a .safetensors, a folder of peft, a run, or its checkpoints")
    if not keys.adapter:
        read = set(VideoModelKeys.__dataclass_fields__) - {"adapter_strength"}
        refuse(keys, key, read, f"{key}.adapter is not given")


def require(path: str | None, key: str, what: str = "a .safetensors") -> None:
    """UserError where a path that a config key gives is not there. what: to give instead."""
    if not path or not Path(path).exists():
        raise UserError(f"config key {key} is {path!r}, which does not exist: give {what}", status=2)


def check_kernel(cfg: MMDiTConfig, key: str) -> None:
    """UserError for a kernel inside attention that has none inside. cfg: of a video model. key: dotted name."""
    if cfg.attention not in SPLIT:
        read = set(type(cfg).__dataclass_fields__) - {"attention_kernel"}
        refuse(cfg, key, read, f"{key}.attention is {cfg.attention}")
