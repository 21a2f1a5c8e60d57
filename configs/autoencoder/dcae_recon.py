"""The Video DC-AE 4x32x32, first phase: L1 + 0.5 LPIPS.

Command:   osjax train --config=configs/autoencoder/dcae_recon.py --config.source=DIR --config.lpips.weights=DIR
Hardware:  the report's run took 8 GPUs; both phases together three weeks
Expected:  250,000 steps

AdamW as the report has it; `repository_recon.py` has the repository's settings.
"""

from ml_collections import ConfigDict

from osjax.configs import base
from osjax.configs.autoencoder import released


def get_config() -> ConfigDict:
    return base.single("dcae_recon", stage())


def stage() -> ConfigDict:
    return released.stage(steps=250_000)
