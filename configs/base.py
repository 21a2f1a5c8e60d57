"""What a config of a training run is made of. A config file makes a stage, changes keys, and returns `single(...)`.

A run has one stage, its keys beside those of the run, or several: `curriculum({name: stage, ...})`. Every key is a
field of a dataclass, which says its unit and its default:

    a run            osjax/parts/run.py
    any stage        osjax/parts/stage.py, start.py, data.py, and training/optimizer.py, freeze.py, health.py
    the video model  osjax/parts/diffusion.py, lora.py, text.py, autoencoder.py, and models/mmdit/config.py
    an autoencoder   osjax/parts/autoencoder_stage.py, lpips.py, dinov2.py, discriminator.py, and training/gan.py
"""

from ml_collections import ConfigDict

from osjax.parts import autoencoder_stage, run
from osjax.parts import diffusion as diffusion_stage


def single(name: str, stage: ConfigDict) -> ConfigDict:
    """A run of one stage."""
    cfg = run.keys(f"runs/{name}")
    cfg.name = name
    for key in stage:
        cfg[key] = stage[key]
    return cfg


def curriculum(name: str, stages: dict[str, ConfigDict]) -> ConfigDict:
    """A run of several stages, in this order; a finished one is not run again."""
    cfg = run.keys(f"runs/{name}")
    cfg.order = tuple(stages)
    cfg.stages = ConfigDict(stages)
    return cfg


def diffusion() -> ConfigDict:
    """A stage of the video model."""
    return diffusion_stage.keys()


def autoencoder() -> ConfigDict:
    """A stage of the Video DC-AE."""
    return autoencoder_stage.keys()
