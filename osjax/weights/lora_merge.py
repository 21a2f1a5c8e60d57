"""Adapters added to a model's kernels as these are read, window by window."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from osjax.models import lora
from osjax.weights.dora import Gains
from osjax.weights.leaves import Leaves
from osjax.weights.lora import Adapters
from osjax.weights.rules import Path, Window


def merged(base: Leaves, adapters: Adapters, strength: float = 1.0) -> Leaves:
    """The leaves of the model `base` with adapters added to its kernels as they are read.

    strength: how much of the change is made; 0 leaves the kernels as they are.
    """
    pairs, scale = lora.pairs(adapters.tree), np.float32(adapters.cfg.scale)
    if adapters.magnitudes is None:
        scale *= np.float32(strength)

    def summed(path: Path, window: Window) -> np.ndarray:
        """A window of a kernel with the products of its pair added, float32."""
        value = base.read(path, window).astype(np.float32)
        return value + lora.product(path[:-1], *_cut(path, pairs[path[:-1]], window)).reshape(value.shape) * scale

    gains = None if adapters.magnitudes is None else Gains(adapters.magnitudes, base.shapes, summed)

    def read(path: Path, window: Window) -> np.ndarray:
        if path[-1] != "kernel" or path[:-1] not in pairs:
            return base.read(path, window)
        changed = summed(path, window)
        if gains is not None:
            value = base.read(path, window).astype(np.float32)
            changed = value + np.float32(strength) * (gains.of(path, window) * changed - value)
        return changed.astype(base.dtypes[path])

    return Leaves(base.shapes, base.dtypes, read)


def _cut(path: Path, pair: Mapping[str, Any], window: Window) -> tuple[np.ndarray, np.ndarray]:
    """The parts of a and b that make a window of a kernel."""
    a, b = np.asarray(pair["a"]), np.asarray(pair["b"])
    lead, fused = int(path[0].endswith("_blocks")), int(path[-2] == "qkv")
    n_in = a.ndim - 1 - lead - fused
    inside, outside = window[lead : lead + n_in], window[lead + n_in + fused :]
    q = window[lead + n_in : lead + n_in + fused]
    return a[*window[:lead], *inside, *q], b[*window[:lead], *q, :, *outside]
