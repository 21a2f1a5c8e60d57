"""`latent_scale.json`: the normalisation of its latents that an autoencoder stage measured, in the stage's folder."""

import json
from pathlib import Path

import numpy as np

from osjax import atomic
from osjax.models.autoencoder import LatentScale

FILE = "latent_scale.json"


def measured(latents_BTHWC: np.ndarray) -> LatentScale:
    """The scale that brings latents (B, T, H, W, C) to zero mean and unit variance per channel."""
    axes = tuple(range(latents_BTHWC.ndim - 1))
    std, mean = latents_BTHWC.std(axes), latents_BTHWC.mean(axes)
    return LatentScale(1 / np.maximum(std, 1e-6), mean)


def write(folder: Path, scale: LatentScale) -> None:
    """Keep a scale (one number a channel) in the folder of the stage that measured it."""
    values = {"scale": np.asarray(scale.scale).tolist(), "shift": np.asarray(scale.shift).tolist()}
    atomic.write_text(folder / FILE, json.dumps(values))


def read(folder: Path) -> LatentScale:
    """The scale that the stage of a folder measured; the identity where it measured none."""
    path = folder / FILE
    if not path.exists():
        return LatentScale()
    values = json.loads(path.read_text())
    return LatentScale(np.array(values["scale"], np.float32), np.array(values["shift"], np.float32))
