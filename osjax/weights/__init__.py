"""Weights from and to the original's state dicts. One table a model family, read in both directions."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import flax.linen as nn
import numpy as np

from osjax import models
from osjax.weights import rules
from osjax.weights.layout import FLUX, OPEN_SORA_V2, Layout

__all__ = ["FLUX", "OPEN_SORA_V2", "Layout", "from_torch", "to_torch", "torch_shapes"]


def _table(cfg, layout: Layout) -> list[rules.Rule]:
    family = models.family_of(cfg)
    module = import_module(f"osjax.weights.{family}")
    return module.table(cfg, layout) if family == "mmdit" else module.table(cfg)  # only the MMDiT has layouts


def from_torch(cfg, tensors: Mapping[str, np.ndarray], *, layout: Layout = OPEN_SORA_V2) -> dict[str, Any]:
    """Params pytree (numpy leaves) from the original's tensors. UserError lists all that do not fit, at once."""
    shapes = nn.unbox(models.abstract_params(cfg))
    return rules.to_params(_table(cfg, layout), shapes, tensors)


def to_torch(cfg, params: Mapping[str, Any], *, layout: Layout = OPEN_SORA_V2) -> dict[str, np.ndarray]:
    """The original's tensors from a params pytree; the inverse of `from_torch`, byte-equal."""
    return rules.to_tensors(_table(cfg, layout), params)


def torch_shapes(cfg, *, layout: Layout = OPEN_SORA_V2) -> dict[str, tuple[int, ...]]:
    """{torch name: shape} of the original's state dict; allocates nothing."""
    return rules.torch_shapes(_table(cfg, layout))
