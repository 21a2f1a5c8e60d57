"""The first phase of the Video DC-AE with the repository's optimiser settings: betas 0.9, 0.98, eps 1e-8, EMA 0.99.

Command:   osjax train --config=configs/autoencoder/repository_recon.py --config.source=DIR --config.lpips.weights=DIR
Hardware:  as dcae_recon.py
Expected:  as dcae_recon.py
"""

from ml_collections import ConfigDict

from osjax.configs import base
from osjax.configs.autoencoder import dcae_recon, released


def get_config() -> ConfigDict:
    return base.single("repository_recon", released.repository(dcae_recon.stage()))
