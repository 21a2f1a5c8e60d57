"""The deep-compression model: 11B, 128 frames of 768x768 in Video DC-AE latents, on accelerators.

Command:   osjax bench --config=configs/bench/deep_compression_768.py --blocks=fit --json=bench.json
Hardware:  as v2_256.py
"""

from ml_collections import ConfigDict

from osjax.configs.bench.options import released


def get_config() -> ConfigDict:
    cfg = released(768, 128)
    cfg.model.update(in_channels=128, patch_size=1)
    cfg.train_batch = 8  # the report's Figure 4 speaks of 2 x 8
    cfg.autoencoder.family = "dcae"
    cfg.autoencoder.dtype = "bfloat16"
    cfg.autoencoder.update(frames=32, size=256)
    return cfg
