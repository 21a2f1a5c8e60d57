"""A workdir as a finished run leaves it: real checkpoints of tiny models and their model.json."""

import jax.numpy as jnp
import numpy as np

from osjax import models
from osjax.conditioning.text import TextEncoder
from osjax.models.autoencoder import LatentScale
from osjax.sampling import workdir
from osjax.training.checkpoint import Checkpoints
from osjax.training.state import TrainState
from tests.sampling import tiny

SCALE = LatentScale(np.linspace(0.5, 1.5, 8).astype(np.float32), np.linspace(-0.2, 0.2, 8).astype(np.float32))
SETTINGS = {
    "frames": 8,
    "height": 32,
    "width": 32,
    "steps": 3,
    "guidance": 2.0,
    "guidance_img": 2.0,
    "fps": 8,
}


def write(folder):
    configs = {"denoiser": ("mmdit", tiny.DENOISER), "autoencoder": ("dcae", tiny.AUTOENCODER)}
    found = {}
    for name, (family, fields) in configs.items():
        cfg = models.config(family, **fields)
        params = tiny.params(cfg)
        zero = jnp.zeros((), jnp.int32)
        # The raw parameters are useless, so a test notices when they are taken for the average.
        state = TrainState(zero, zero, {k: _zeros(v) for k, v in params.items()}, (), params)
        store = Checkpoints(folder / name / "checkpoints")
        store.save(7, state, None, {})
        store.close()
        found[name] = workdir.TrainedModel(cfg, f"{name}/checkpoints")
    workdir.save(folder, workdir.Workdir(**found, text=TextEncoder(**tiny.TEXT), latent_scale=SCALE, settings=SETTINGS))
    return folder


def _zeros(tree):
    return {k: _zeros(v) for k, v in tree.items()} if isinstance(tree, dict) else np.zeros_like(tree)
