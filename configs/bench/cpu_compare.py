"""The sizes of the comparison with the PyTorch original on a CPU (docs/performance.md).

Command:   osjax bench --config=configs/bench/cpu_compare.py train denoise encode decode
Hardware:  2 CPU cores, 8 GB
Time:      five minutes
"""

from ml_collections import ConfigDict

from osjax.configs.bench.options import options


def get_config() -> ConfigDict:
    cfg = options()
    cfg.dtype = "float32"
    cfg.model.update(hidden_size=1536, num_heads=12, depth=2, depth_single_blocks=4, dtype="float32")
    cfg.model.update(in_channels=128, patch_size=1)
    cfg.model.attention = "blockwise"
    cfg.video.update(frames=16, height=512, width=512)  # 4 latent frames of 16 x 16 tokens
    cfg.text_tokens = 128
    cfg.autoencoder.family = "dcae"  # the released one, at full width
    cfg.autoencoder.update(frames=8, size=128)
    cfg.clips.update(train=32, frames=33, size=256, fps=24)
    cfg.data.buckets = (("256px", 33, 1.0, 4),)
    return cfg
