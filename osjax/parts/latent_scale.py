"""`latent_scale.json`: the normalisation of its latents that an autoencoder stage measured, in the stage's folder."""

import json
from pathlib import Path

import jax
import numpy as np

from osjax import atomic, json_file
from osjax.errors import UserError
from osjax.models.autoencoder import LatentScale
from osjax.parallel import exchange

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


def share(folder: Path) -> None:
    """Give every process the scale that one of them has in the folder of a stage. All call this together.

    Folders may be on disks of their own. The first process that has one is believed.
    """
    if jax.process_count() == 1:
        return
    path = folder / FILE
    try:
        here = path.read_text() if path.exists() else None
    except (OSError, ValueError):
        here = None
    told = next((text for text in exchange.of_all(here) if text is not None), None)
    if told is not None and told != here:
        atomic.write_text(path, told)


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
