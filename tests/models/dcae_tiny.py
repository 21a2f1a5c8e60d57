"""The tiny DC-AE of the parity data: its config, its weights made from their names, and jitted encode and decode."""

from functools import cache, partial

import jax
import numpy as np

from osjax import models, weights
from tests import golden


@cache
def load(manifest: str = "manifest_dcae_tiny", **changes):
    """(model, params) for one manifest; changes: config fields to replace."""
    described = golden.read_json(manifest)
    cfg = models.config("dcae", **{**described["config"], **changes})
    shapes = {name: tuple(entry["shape"]) for name, entry in described["state_dict"].items()}
    params = weights.from_torch(cfg, {name: golden.generate(name, shape) for name, shape in shapes.items()})
    return models.build(cfg), params


@partial(jax.jit, static_argnums=0, static_argnames=("method",))
def run(model, params, x_BTHWC, method: str):
    return model.apply({"params": params}, x_BTHWC, method=method)


def channels_last(x_BCTHW) -> np.ndarray:
    return np.moveaxis(x_BCTHW, 1, -1)
