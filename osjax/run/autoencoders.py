"""The autoencoder of a diffusion stage: from a stage of the same run, a weight file or a folder of checkpoints."""

import hashlib
import json
from math import prod
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from osjax import atomic, models
from osjax.errors import UserError
from osjax.models.autoencoder import LatentScale
from osjax.parallel import rules, sharding
from osjax.run.config import to_dataclass
from osjax.run.place import Place
from osjax.run.start import of_checkpoint
from osjax.sampling.autoencoder import Autoencoder
from osjax.weights import load
from osjax.weights.leaves import Leaves
from osjax.weights.rules import whole

DTYPES = ("float32", "bfloat16")
SMALL = 2**16  # values of a parameter that goes into fingerprints
SCALE_FILE = "latent_scale.json"  # in the folder of an autoencoder stage that measured its latents


def config_of(cfg: ConfigDict, stages: dict[str, ConfigDict], key: str = "autoencoder") -> Any:
    """The model config that an `autoencoder` group stands for. stages: of the run, by name."""
    if bool(cfg.stage) == bool(cfg.weights):
        raise UserError(f"give one of {key}.stage, an autoencoder stage of this run, and {key}.weights", status=2)
    _dtype(cfg)
    if not cfg.stage:
        return to_dataclass(models.config_class(cfg.family), cfg.config, f"{key}.config")
    if cfg.stage not in stages or stages[cfg.stage].kind != "autoencoder":
        known = ", ".join(name for name, stage in stages.items() if stage.kind == "autoencoder")
        raise UserError(f"{key}.stage {cfg.stage!r} is no autoencoder stage before this one: {known or 'none'} is")
    stage = stages[cfg.stage]
    return to_dataclass(models.config_class(stage.family), stage.model, f"stages.{cfg.stage}.model")


def read(cfg: ConfigDict, ae_cfg: Any, place: Place, mesh: Mesh) -> Autoencoder:
    """The autoencoder with its parameters on the mesh."""
    shardings = sharding.of_boxed(models.abstract_params(ae_cfg), mesh, rules.AUTOENCODER)
    params = load.place(_leaves(cfg, ae_cfg, place), shardings, jnp.float32)
    return Autoencoder(models.build(ae_cfg).clone(dtype=_dtype(cfg)), params, _scale(cfg, place))


def fingerprint(cfg: ConfigDict, ae_cfg: Any, place: Place) -> str:
    """Of the autoencoder that `read` gives: of its config, its scale and its smaller parameters; 16 hex digits."""
    leaves, scale = _leaves(cfg, ae_cfg, place), _scale(cfg, place)
    sums = hashlib.sha256(f"{ae_cfg} {_dtype(cfg)}".encode())
    for part in (scale.scale, scale.shift):
        sums.update(np.asarray(part, np.float32).tobytes())
    for path, shape in sorted(leaves.shapes.items()):
        if prod(shape) <= SMALL:
            sums.update(f"{path}{shape}".encode() + np.asarray(leaves.read(path, whole(shape)), np.float32).tobytes())
    return sums.hexdigest()[:16]


def _leaves(cfg: ConfigDict, ae_cfg: Any, place: Place) -> Leaves:
    return of_checkpoint(place.of(cfg.stage)) if cfg.stage else load.open_leaves(ae_cfg, cfg.weights)


def _dtype(cfg: ConfigDict) -> Any:
    """Of the computation."""
    name = cfg.get("dtype", "float32")
    if name not in DTYPES:
        raise UserError(f"autoencoder.dtype is {name!r}: use one of {', '.join(DTYPES)}", status=2)
    return jnp.dtype(name)


def _scale(cfg: ConfigDict, place: Place) -> LatentScale:
    return read_scale(place.workdir / cfg.stage) if cfg.stage else LatentScale()


def write_scale(folder: Path, latents_BTHWC: np.ndarray) -> None:
    """The scale that brings these latents to zero mean and unit variance per channel."""
    axes = tuple(range(latents_BTHWC.ndim - 1))
    std, mean = latents_BTHWC.std(axes), latents_BTHWC.mean(axes)
    scale = {"scale": (1 / np.maximum(std, 1e-6)).tolist(), "shift": mean.tolist()}
    atomic.write_text(folder / SCALE_FILE, json.dumps(scale))


def read_scale(folder: Path) -> LatentScale:
    """The scale that an autoencoder stage measured; none where it did not."""
    path = folder / SCALE_FILE
    if not path.exists():
        return LatentScale()
    values = json.loads(path.read_text())
    return LatentScale(np.array(values["scale"], np.float32), np.array(values["shift"], np.float32))
