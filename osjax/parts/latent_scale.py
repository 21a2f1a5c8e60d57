"""`latent_scale.json`: the normalisation of its latents that an autoencoder stage measured, in the stage's folder."""

import json
from pathlib import Path

import numpy as np

from osjax import atomic, json_file
from osjax.errors import UserError
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
    mend = "delete it and run `osjax train` again, which measures it anew"
    values = json_file.read(path, mend, ("scale", "shift"))
    try:
        scale, shift = (np.array(values[name], np.float32) for name in ("scale", "shift"))
        if (
            scale.shape != shift.shape
            or scale.ndim > 1
            or not (np.isfinite(scale) & np.isfinite(shift) & (scale > 0)).all()
        ):
            raise ValueError("values that are no scale")
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}): {mend}") from error
    return LatentScale(scale, shift)
