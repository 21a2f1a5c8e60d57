"""The 768px model on the 4x32x32 latents of the Video DC-AE: clips up to 32 frames, then up to 128.

Command:   osjax train --config=configs/diffusion/deep_compression.py --config.data.source=DIR --multihost
Hardware:  the report's run took 160 H200; five times the throughput of 4x8x8 latents
Expected:  17,000 steps, then 8,000; a flow loss near 0.5

Source: report section 4.3.3 and Appendix F; Open-Sora configs/diffusion/train/high_compression.py. Input and output
layers start anew, all else from the released video model. Seven clips in eight are given their first frame.
"""

from ml_collections import ConfigDict

from osjax.configs import base
from osjax.configs.diffusion import released

FRAMES = range(16, 129, 4)
LONG = released.rows("768px", 1.0, FRAMES, {32: 8, 64: 4, 96: 3, 128: 2})
SHORT = tuple(row for row in LONG if row[1] <= 32)
IMAGES = (("768px", 1, 1.0, 20),)


def get_config() -> ConfigDict:
    return base.curriculum("deep_compression", stages())


def stages(start: str | None = None) -> dict[str, ConfigDict]:
    """start: the stage of the same run to start from; none: the released Open-Sora v2."""
    short, long = stage(17_000, SHORT), stage(8_000, LONG)
    if start:
        short.start.stage = start
    else:
        short.start.weights = "ckpts/Open_Sora_v2.safetensors"
        short.start.config = ConfigDict({"in_channels": 64, "patch_size": 2})
    long.start.stage = "deep_compression_32"
    return {"deep_compression_32": short, "deep_compression_128": long}


def stage(steps: int, videos: tuple) -> ConfigDict:
    cfg = released.stage(steps, lr=3e-5)
    cfg.model.in_channels = 128
    cfg.model.patch_size = 1
    cfg.autoencoder.family = "dcae"
    cfg.autoencoder.weights = "ckpts/F32T4C128_AE.safetensors"
    # No scaling_factor: the original's training config names 0.493, but nothing there reads it, neither in training nor
    # in sampling, so the released weights know latents as the encoder makes them.
    cfg.autoencoder.config = ConfigDict()
    cfg.autoencoder.config.tiling = ConfigDict({"use_spatial_tiling": True, "use_temporal_tiling": True})
    cfg.data.buckets = videos + IMAGES
    cfg.modes = ConfigDict({"t2v": 1.0, "i2v_head": 7.0})
    cfg.checkpoint.every = 250
    return cfg
