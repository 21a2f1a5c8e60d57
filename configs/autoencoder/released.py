"""What both phases of the released Video DC-AE share, and its two sets of optimiser settings.

The report (section 4.4) and the repository (configs/vae/train/video_dc_ae.py, video_dc_ae_disc.py) agree on losses,
batches and learning rates. Of the share of images the report says nothing.
"""

from ml_collections import ConfigDict

from osjax.configs import base

REPORT = {"b1": 0.9, "b2": 0.999, "eps": 1e-15}
REPOSITORY = {"b1": 0.9, "b2": 0.98, "eps": 1e-8}


def stage(steps: int) -> ConfigDict:
    """The full-width model on clips of 32 x 256 x 256, one a device; LPIPS from the user's files."""
    cfg = base.autoencoder()
    cfg.steps = steps
    cfg.dtype = "bfloat16"
    cfg.data.buckets = (("256px_ar1:1", 32, 1.0, 1),)
    cfg.data.batch_per_device = True
    cfg.data.image_ratio = 0.2
    cfg.data.threads = 12
    cfg.losses.perceptual_weight = 0.5
    cfg.lpips.weights = "ckpts/lpips"
    cfg.optimizer.update(REPORT)
    cfg.checkpoint.every = 3000
    cfg.hang.factor = 20.0
    return cfg


def repository(cfg: ConfigDict) -> ConfigDict:
    """A stage with the repository's optimiser settings in place of the report's."""
    cfg.optimizer.update(REPOSITORY, ema_decay=0.99)
    if cfg.adversary.disc_weight:
        cfg.adversary.optimizer.update(REPOSITORY)
    return cfg
