"""Weights from and to the original's state dicts. One table a model family, read in both directions."""

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any, cast

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict

from osjax import models
from osjax.types import ModelConfig, NamedTree
from osjax.weights import leaves, rules
from osjax.weights.layout import FLUX, FLUX_DIFFUSERS, LAYOUTS, OPEN_SORA_V2, Layout, layout_named

__all__ = [
    "FLUX",
    "FLUX_DIFFUSERS",
    "LAYOUTS",
    "OPEN_SORA_V2",
    "Layout",
    "from_torch",
    "has_layouts",
    "layout_named",
    "leaf_shapes",
    "table",
    "to_torch",
    "torch_leaves",
    "torch_shapes",
]


def table(cfg: ModelConfig, layout: Layout = OPEN_SORA_V2) -> list[rules.Rule]:
    """The weight map of a model, from `osjax/weights/<family>.py`.

    cfg: its configuration (`models.config`). layout: of the attention weights, for families that have several.
    """
    module = family_module(models.family_of(cfg))
    return module.table(cfg, layout) if has_layouts(models.family_of(cfg)) else module.table(cfg)


def has_layouts(family: str) -> bool:
    """Whether files of a model family come in several layouts (`LAYOUTS`), so that one must be named to read them."""
    return hasattr(family_module(family), "LAYOUTS")


def family_module(family: str) -> ModuleType:
    """`osjax/weights/<family>.py`, which holds the family's weight map."""
    return import_module(f"osjax.weights.{family}")


def leaf_shapes(cfg: ModelConfig) -> dict[rules.Path, tuple[int, ...]]:
    """Shape of every parameter of the model `cfg` by its path in the params tree; allocates nothing."""
    shapes = cast(dict[rules.Path, jax.ShapeDtypeStruct], flatten_dict(nn.unbox(models.abstract_params(cfg))))
    return {path: tuple(leaf.shape) for path, leaf in shapes.items()}


def torch_leaves(cfg: ModelConfig, tensors: Mapping[str, Any], *, layout: Layout = OPEN_SORA_V2) -> leaves.Leaves:
    """Parameters of the model `cfg` from the original's tensors, each read when it is asked for.

    tensors: by the original's names, with `.shape`, `.dtype` and slicing. layout: theirs.
    UserError lists all that do not fit.
    """
    return leaves.of_tensors(table(cfg, layout), leaf_shapes(cfg), tensors)


def from_torch(cfg: ModelConfig, tensors: Mapping[str, np.ndarray], *, layout: Layout = OPEN_SORA_V2) -> dict[str, Any]:
    """Params pytree (numpy leaves) of the model `cfg` from the original's tensors.

    tensors: by the original's names. layout: theirs. UserError lists all that do not fit, at once.
    """
    return torch_leaves(cfg, tensors, layout=layout).tree()


def to_torch(cfg: ModelConfig, params: NamedTree, *, layout: Layout = OPEN_SORA_V2) -> dict[str, np.ndarray]:
    """The original's tensors by name from a params pytree of the model `cfg`, in this layout.

    The inverse of `from_torch`, byte-equal.
    """
    known, read = leaves.to_tensors(table(cfg, layout), leaves.of_params(params))
    return {name: read(name) for name in known}


def torch_shapes(cfg: ModelConfig, *, layout: Layout = OPEN_SORA_V2) -> dict[str, tuple[int, ...]]:
    """{torch name: shape} of the original's state dict of the model `cfg` in this layout; allocates nothing."""
    return rules.torch_shapes(table(cfg, layout))
