"""Every model family by name: `config` makes its frozen dataclass, `build` its flax module."""

from functools import cache, partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, cast, overload

import flax.linen as nn
import jax

from osjax.errors import UserError
from osjax.types import ModelConfig

if TYPE_CHECKING:
    from osjax.models.aesthetic import AestheticConfig
    from osjax.models.clip_text import CLIPTextConfig
    from osjax.models.clip_vision import CLIPVisionConfig
    from osjax.models.dcae.config import DCAEConfig
    from osjax.models.dinov2 import DINOv2Config
    from osjax.models.discriminator import DiscriminatorConfig
    from osjax.models.flux_ae import FluxAEConfig
    from osjax.models.hunyuan.config import HunyuanConfig
    from osjax.models.lpips import LPIPSConfig
    from osjax.models.mmdit.config import MMDiTConfig
    from osjax.models.t5 import T5Config

# family -> (config module, config class, model module, model class); imported when asked for.
_FAMILIES = {
    "mmdit": ("osjax.models.mmdit.config", "MMDiTConfig", "osjax.models.mmdit.model", "MMDiT"),
    "dcae": ("osjax.models.dcae.config", "DCAEConfig", "osjax.models.dcae.model", "DCAE"),
    "hunyuan": ("osjax.models.hunyuan.config", "HunyuanConfig", "osjax.models.hunyuan.model", "Hunyuan"),
    "flux_ae": ("osjax.models.flux_ae", "FluxAEConfig", "osjax.models.flux_ae", "FluxAE"),
    "t5": ("osjax.models.t5", "T5Config", "osjax.models.t5", "T5Encoder"),
    "clip_text": ("osjax.models.clip_text", "CLIPTextConfig", "osjax.models.clip_text", "CLIPText"),
    "clip_vision": ("osjax.models.clip_vision", "CLIPVisionConfig", "osjax.models.clip_vision", "CLIPVision"),
    "aesthetic": ("osjax.models.aesthetic", "AestheticConfig", "osjax.models.aesthetic", "Aesthetic"),
    "dinov2": ("osjax.models.dinov2", "DINOv2Config", "osjax.models.dinov2", "DINOv2"),
    "lpips": ("osjax.models.lpips", "LPIPSConfig", "osjax.models.lpips", "LPIPS"),
    "discriminator": (
        "osjax.models.discriminator",
        "DiscriminatorConfig",
        "osjax.models.discriminator",
        "Discriminator",
    ),
}

VIDEO_MODELS = ("mmdit",)  # families that keep the contract of models/velocity.py
AUTOENCODERS = ("dcae", "hunyuan", "flux_ae")  # families that keep the contract of models/autoencoder.py


def config_class(family: str) -> type[Any]:
    """The frozen dataclass of a family's configuration. UserError for an unknown family."""
    if family not in _FAMILIES:
        raise UserError(f"unknown model family {family!r}: use one of {', '.join(_FAMILIES)}")
    module, name, *_ = _FAMILIES[family]
    return getattr(import_module(module), name)


@overload
def config(family: Literal["mmdit"], **fields: object) -> "MMDiTConfig": ...
@overload
def config(family: Literal["dcae"], **fields: object) -> "DCAEConfig": ...
@overload
def config(family: Literal["hunyuan"], **fields: object) -> "HunyuanConfig": ...
@overload
def config(family: Literal["flux_ae"], **fields: object) -> "FluxAEConfig": ...
@overload
def config(family: Literal["t5"], **fields: object) -> "T5Config": ...
@overload
def config(family: Literal["clip_text"], **fields: object) -> "CLIPTextConfig": ...
@overload
def config(family: Literal["clip_vision"], **fields: object) -> "CLIPVisionConfig": ...
@overload
def config(family: Literal["aesthetic"], **fields: object) -> "AestheticConfig": ...
@overload
def config(family: Literal["dinov2"], **fields: object) -> "DINOv2Config": ...
@overload
def config(family: Literal["lpips"], **fields: object) -> "LPIPSConfig": ...
@overload
def config(family: Literal["discriminator"], **fields: object) -> "DiscriminatorConfig": ...
@overload
def config(family: str, **fields: object) -> Any: ...
def config(family: str, **fields: object) -> Any:
    """Frozen configuration of a family. TypeError for an unknown field, UserError for an unknown family."""
    return config_class(family)(**fields)


def family_of(cfg: ModelConfig) -> str:
    """Name of the family that a configuration belongs to."""
    for family, (_, name, *_) in _FAMILIES.items():
        if type(cfg).__name__ == name:
            return family
    raise TypeError(f"{type(cfg).__name__} is not the configuration of a model family")


def build(cfg: ModelConfig) -> nn.Module:
    """The flax module of a configuration."""
    *_, module, name = _FAMILIES[family_of(cfg)]
    return getattr(import_module(module), name)(cfg)


@partial(jax.jit, static_argnums=0)  # traced once, for the shapes that many ask for and for the arrays
def init_params(cfg: ModelConfig, key: jax.Array) -> dict[str, Any]:
    """Freshly initialised parameters, boxed with their logical axis names; trace it under jit or eval_shape."""
    module = import_module(_FAMILIES[family_of(cfg)][2])
    zeros = jax.tree.map(lambda s: jax.numpy.zeros(s.shape, s.dtype), module.example_inputs(cfg))
    return cast(dict[str, Any], build(cfg).init(key, *zeros)["params"])


@cache  # a run asks often, and every answer traces the whole model
def abstract_params(cfg: ModelConfig) -> dict[str, Any]:
    """Boxed shapes of all parameters; allocates nothing. The tree is shared: leave it as it is."""
    return jax.eval_shape(lambda: init_params(cfg, jax.random.key(0)))
