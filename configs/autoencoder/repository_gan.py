"""The second phase of the Video DC-AE with the repository's optimiser settings, for both models.

Command:   osjax train --config=configs/autoencoder/repository_gan.py --config.source=DIR --config.lpips.weights=DIR
Hardware:  as dcae_gan.py
Expected:  as dcae_gan.py
"""

from ml_collections import ConfigDict

from osjax.configs import base
from osjax.configs.autoencoder import dcae_gan, released


def get_config() -> ConfigDict:
    cfg = released.repository(dcae_gan.stage())
    cfg.start.weights = "runs/repository_recon/repository_recon/checkpoints"
    return base.single("repository_gan", cfg)
