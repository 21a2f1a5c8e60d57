"""The Video DC-AE 4x32x32, second phase: L1 + 0.5 LPIPS + 0.05 adversarial, from the first phase's weights.

Command:   osjax train --config=configs/autoencoder/dcae_gan.py --config.source=DIR --config.lpips.weights=DIR
Hardware:  the report's run took 8 GPUs; both phases together three weeks
Expected:  200,000 steps; LPIPS 0.051, PSNR 30.538, SSIM 0.863 (the report's Table 1)

The discriminator is the original's: 3D, five layers, hinge loss. AdamW as the report has it; `repository_gan.py` has
the repository's settings.
"""

from ml_collections import ConfigDict

from osjax.configs import base
from osjax.configs.autoencoder import released


def get_config() -> ConfigDict:
    return base.single("dcae_gan", stage())


def stage() -> ConfigDict:
    cfg = released.stage(steps=200_000)
    cfg.start.weights = "runs/dcae_recon/dcae_recon/checkpoints"
    cfg.adversary.disc_weight = 0.05
    cfg.adversary.optimizer.lr = 1e-4
    return cfg
