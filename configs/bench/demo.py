"""The models of `osjax demo`, on a CPU.

Command:   osjax bench
Hardware:  2 CPU cores, 2 GB
Time:      one minute
"""

from ml_collections import ConfigDict

from osjax.configs import demo
from osjax.configs.bench.options import options


def get_config() -> ConfigDict:
    cfg = options()
    cfg.dtype = "float32"
    cfg.model = demo.stage("64px", 1, 1e-3).model
    cfg.video.update(frames=8, height=64, width=64)
    cfg.text_tokens = 12
    cfg.train_batch = 32
    cfg.denoise_batch = 4
    cfg.autoencoder.family = "dcae"
    cfg.autoencoder.config = demo.autoencoder_model()
    cfg.autoencoder.update(frames=8, size=64, batch=4)
    small = {"vocab_size": 512, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}
    cfg.t5 = ConfigDict({"config": small, "batch": 4})
    cfg.clips.update(train=32, frames=8, size=64, fps=8)
    cfg.data.buckets = (("64px", 8, 1.0, 8),)
    return cfg
