"""Weights from and to the original's state dicts. One table a model family, read in both directions."""

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

import flax.linen as nn
import numpy as np

from osjax import models
from osjax.weights import leaves, rules
from osjax.weights.layout import FLUX, LAYOUTS, OPEN_SORA_V2, Layout

__all__ = [
    "FLUX",
    "LAYOUTS",
    "OPEN_SORA_V2",
    "Layout",
    "from_torch",
    "has_layouts",
    "leaf_shapes",
    "table",
    "to_torch",
    "torch_leaves",
    "torch_shapes",
]


def table(cfg, layout: Layout = OPEN_SORA_V2) -> list[rules.Rule]:
    """The weight map of a model configuration, from `osjax/weights/<family>.py`."""
    module = family_module(models.family_of(cfg))
    return module.table(cfg, layout) if has_layouts(models.family_of(cfg)) else module.table(cfg)


def has_layouts(family: str) -> bool:
    """Whether files of a model family come in several layouts (`LAYOUTS`), so that one must be named to read them."""
    return hasattr(family_module(family), "LAYOUTS")


def family_module(family: str) -> ModuleType:
    """`osjax/weights/<family>.py`, which holds the family's weight map."""
    return import_module(f"osjax.weights.{family}")


def leaf_shapes(cfg) -> dict[rules.Path, tuple[int, ...]]:
    """Shape of every parameter by its path in the params tree; allocates nothing."""
    return {path: tuple(x.shape) for path, x in leaves.flatten(nn.unbox(models.abstract_params(cfg))).items()}


def torch_leaves(cfg, tensors: Mapping[str, Any], *, layout: Layout = OPEN_SORA_V2) -> leaves.Leaves:
    """Parameters from the original's tensors, each read when it is asked for. UserError lists all that do not fit."""
    return leaves.of_tensors(table(cfg, layout), leaf_shapes(cfg), tensors)


def from_torch(cfg, tensors: Mapping[str, np.ndarray], *, layout: Layout = OPEN_SORA_V2) -> dict[str, Any]:
    """Params pytree (numpy leaves) from the original's tensors. UserError lists all that do not fit, at once."""
    found = torch_leaves(cfg, tensors, layout=layout)
    return leaves.unflatten({path: found.read(path, rules.whole(shape)) for path, shape in found.shapes.items()})


def to_torch(cfg, params: Mapping[str, Any], *, layout: Layout = OPEN_SORA_V2) -> dict[str, np.ndarray]:
    """The original's tensors from a params pytree; the inverse of `from_torch`, byte-equal."""
    known, read = leaves.to_tensors(table(cfg, layout), leaves.of_params(params))
    return {name: read(name) for name in known}


def torch_shapes(cfg, *, layout: Layout = OPEN_SORA_V2) -> dict[str, tuple[int, ...]]:
    """{torch name: shape} of the original's state dict; allocates nothing."""
    return rules.torch_shapes(table(cfg, layout))
