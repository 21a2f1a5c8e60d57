"""A config for tests that start many runs: a thin autoencoder of two levels, then text to video on its latents.

Small in depth above all: a start spends its time on tracing layers.
"""

from ml_collections import ConfigDict

from osjax.configs import base, smoke

SIDE = {"width_list": (8, 8), "depth_list": (1, 1), "block_type": "ResBlock"}


def get_config() -> ConfigDict:
    cfg = base.curriculum("two_stages", {"autoencoder": autoencoder(), "stage1_t2v": diffusion()})
    cfg.clips.update(train=24, size=32)
    return cfg


def autoencoder() -> ConfigDict:
    cfg = smoke.autoencoder()
    cfg.steps = 6
    cfg.model = ConfigDict({"latent_channels": 4, "time_compression_ratio": 2, "spatial_compression_ratio": 2})
    cfg.model.encoder = ConfigDict({**SIDE, "temporal_downsample": (True, False)})
    cfg.model.decoder = ConfigDict({**SIDE, "temporal_upsample": (True, False)})
    cfg.losses.crop = 16
    cfg.data.buckets = (("32px", 8, 1.0, 8),)
    cfg.latent_statistics.resolution = "32px"
    cfg.checkpoint.every = 3
    return cfg


def diffusion() -> ConfigDict:
    cfg = smoke.diffusion("32px", steps=18)
    cfg.model.update(in_channels=16, patch_size=2, hidden_size=32, axes_dim=(4, 6, 6), depth_single_blocks=1)
    cfg.sample.update(height=32, width=32)
    cfg.checkpoint.every = 3
    return cfg
