"""The curriculum in miniature: autoencoder, 64px T2V, 64px T/I2V, 80px T/I2V. For trying a machine, and for tests.

Command:   osjax train --config=configs/smoke.py --workdir=DIR
Hardware:  2 CPU cores, 2 GB
Time:      under 90 seconds
"""

from ml_collections import ConfigDict

from osjax.configs import base


def get_config() -> ConfigDict:
    stage1 = diffusion("64px", steps=16)
    stage2 = continued(diffusion("64px", steps=8), "stage1_t2v")
    stage3 = continued(diffusion("80px", steps=8), "stage2_i2v")
    stage2.modes = stage3.modes = ConfigDict({"t2v": 1.0, "i2v_head": 5.0, "i2v_loop": 1.0, "i2v_tail": 1.0})
    stages = {"autoencoder": autoencoder(), "stage1_t2v": stage1, "stage2_i2v": stage2, "stage3_i2v": stage3}
    cfg = base.curriculum("smoke", stages)
    cfg.clips.train = 48
    cfg.clips.held_out = 16
    cfg.clips.size = 80
    return cfg


def autoencoder() -> ConfigDict:
    cfg = base.autoencoder()
    cfg.steps = 16
    cfg.model = autoencoder_model()
    cfg.data.buckets = (("64px", 8, 1.0, 8),)
    cfg.optimizer = short(cfg, lr=1e-3)
    cfg.losses.crop = 32
    cfg.latent_statistics = ConfigDict({"clips": 16, "resolution": "64px"})
    cfg.checkpoint.every = 8
    return cfg


def diffusion(resolution: str, steps: int) -> ConfigDict:
    cfg = base.diffusion()
    cfg.steps = steps
    model = dict(in_channels=16, vec_in_dim=32, context_in_dim=32, hidden_size=64, num_heads=2, depth=1)
    cfg.model.update(model, depth_single_blocks=2, axes_dim=(8, 12, 12), theta=100.0, patch_size=1, dtype="float32")
    cfg.text.update(width=32, max_length=12)
    cfg.autoencoder.stage = "autoencoder"
    cfg.data.buckets = ((resolution, 8, 1.0, 8),)
    cfg.data.cached = True
    cfg.optimizer = short(cfg, lr=1e-3)
    cfg.checkpoint.every = 4
    cfg.sample = ConfigDict({"frames": 8, "height": 80, "width": 80, "steps": 10, "guidance": 3.0, "fps": 8})
    return cfg


def continued(cfg: ConfigDict, stage: str) -> ConfigDict:
    cfg.start.stage = stage
    return cfg


def short(cfg: ConfigDict, lr: float) -> ConfigDict:
    """Settings for runs of few steps."""
    optimizer = cfg.optimizer
    optimizer.update(lr=lr, b2=0.98, eps=1e-8, warmup_steps=4, ema_decay=0.9)
    return optimizer


def autoencoder_model() -> ConfigDict:
    """A Video DC-AE of stride 4 x 16 x 16: the released one's blocks and shortcuts, thin and one stage shorter."""
    widths, in_time = (8, 8, 16, 32, 32), (False, False, True, True, False)
    blocks = ("ResBlock", "ResBlock", "ResBlock", "ResBlock", "EViTS5_GLU")
    model = ConfigDict({"latent_channels": 16, "time_compression_ratio": 4, "spatial_compression_ratio": 16})
    model.encoder = ConfigDict({"width_list": widths, "depth_list": (0, 1, 1, 1, 1), "block_type": blocks})
    model.encoder.temporal_downsample = in_time
    model.decoder = ConfigDict({"width_list": widths, "depth_list": (0, 1, 1, 1, 1), "block_type": blocks})
    model.decoder.temporal_upsample = in_time
    return model
