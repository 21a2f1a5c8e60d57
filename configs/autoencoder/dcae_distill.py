"""Latent distillation of the trained Video DC-AE: its third level is drawn towards DINOv2's features.

Command:   osjax train --config=configs/autoencoder/dcae_distill.py --config.source=DIR --config.lpips.weights=DIR \\
               --config.dinov2.weights=dinov2_vitb14_pretrain.pth
Hardware:  as dcae_gan.py, and DINOv2's forward pass on four frames of every clip
Expected:  the report gives neither steps nor weight; both are our choice here

Source: report section 4.3.3. The repository has no code for it.
"""

from ml_collections import ConfigDict

from osjax.configs import base
from osjax.configs.autoencoder import released


def get_config() -> ConfigDict:
    return base.single("dcae_distill", stage())


def stage() -> ConfigDict:
    cfg = released.stage(steps=20_000)
    cfg.start.weights = "runs/dcae_gan/dcae_gan/checkpoints"
    cfg.losses.alignment_weight = 0.5
    cfg.dinov2.weights = "ckpts/dinov2_vitb14_pretrain.pth"
    return cfg
