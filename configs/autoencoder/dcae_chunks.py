"""A chunk-causal Video DC-AE 4x32x32, first phase: chunks of 16 frames that know nothing of later ones.

Command:   osjax train --config=configs/autoencoder/dcae_chunks.py --config.source=DIR --config.lpips.weights=DIR
Hardware:  as dcae_recon.py; attention and convolutions of a clip cost what they cost without chunks
Expected:  250,000 steps; not trained by anyone yet

Long videos need no tiles in time: `osjax.models.dcae.stream` encodes and decodes them chunk by chunk. It may start from
an image DC-AE of the same levels and latent channels: --config.start.weights=FILE --config.start.inflate=True.
"""

from ml_collections import ConfigDict

from osjax.configs import base
from osjax.configs.autoencoder import released


def get_config() -> ConfigDict:
    cfg = released.stage(steps=250_000)
    cfg.model.chunk_frames = 16
    return base.single("dcae_chunks", cfg)
