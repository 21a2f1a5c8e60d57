"""Discriminators with the weights of the parity data, made from their names."""

from functools import cache

import numpy as np

from osjax import models, weights
from tests import golden


def tensors(manifest: str) -> dict[str, np.ndarray]:
    known = golden.read_json(manifest)
    return {
        name: golden.generate(name, tuple(entry["shape"]), known["gain"])
        if entry.get("generated", True)
        else np.zeros(entry["shape"], entry["dtype"])
        for name, entry in known["state_dict"].items()
    }


@cache
def load(manifest: str):
    """(module, params)."""
    cfg = models.config("discriminator", **golden.read_json(manifest)["config"])
    return models.build(cfg), weights.from_torch(cfg, tensors(manifest))
