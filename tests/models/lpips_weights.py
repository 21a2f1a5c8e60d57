"""LPIPS with the weights of the parity data, made from their names."""

from functools import cache

import numpy as np

from osjax import models, weights
from tests import golden


def tensors() -> dict[str, np.ndarray]:
    known = golden.read_json("manifest_lpips")
    return {
        name: golden.generate(name, tuple(entry["shape"]), known["gain"])
        if entry.get("generated", True)
        else np.array(known["config"][name], np.float32).reshape(entry["shape"])
        for name, entry in known["state_dict"].items()
    }


@cache
def load():
    """(module, params)."""
    cfg = models.config("lpips")
    return models.build(cfg), weights.from_torch(cfg, tensors())
