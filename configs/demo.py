"""The whole curriculum in miniature, on a CPU: Video DC-AE, low-resolution T2V, T/I2V mix, higher-resolution I2V.

Command:   osjax demo            (or osjax demo --config.workdir=DIR)
Hardware:  2 CPU cores, 6 GB
Time:      under 20 minutes
"""

from ml_collections import ConfigDict
from osjax.configs import base

from osjax.parts.demo import DemoReport
from osjax.parts.groups import group


def get_config() -> ConfigDict:
    low, high = "64px", "80px"
    stages = {
        "autoencoder": autoencoder(high, 1000, 8, 6e-4),
        "stage1_t2v_low": stage(low, 650, 2e-3),
        "stage2_i2v_low": stage(low, 300, 1.5e-3, start="stage1_t2v_low"),
        "stage3_i2v_high": stage(high, 1250, 1.5e-3, start="stage2_i2v_low"),
    }
    # Less is given than in the report: shapes without a given frame are what takes longest to learn.
    mix = {"t2v": 5.0, "i2v_head": 2.6, "i2v_loop": 0.2, "i2v_tail": 0.2}
    stages["stage2_i2v_low"].modes = ConfigDict(mix)
    stages["stage3_i2v_high"].modes = ConfigDict(mix)

    cfg = base.curriculum("demo", stages)
    cfg.clips.train = 1152
    cfg.clips.held_out = 96
    cfg.clips.frames = 8
    cfg.clips.size = 80  # pixels of the rendered clips
    cfg.clips.fps = 8

    cfg.report = group(DemoReport)
    return cfg


def autoencoder(resolution: str, steps: int, batch: int, lr: float) -> ConfigDict:
    cfg = base.autoencoder()
    cfg.seed = 0
    cfg.steps = steps
    cfg.model = autoencoder_model()
    cfg.data.buckets = ((resolution, 8, 1.0, batch),)
    cfg.losses.mse_weight = 4.0
    cfg.losses.crop = 32
    cfg.losses.image_weight = 0.2  # for given first frames
    cfg.latent_statistics.clips = 256
    cfg.checkpoint.every = 200
    from_scratch(cfg.optimizer, lr, steps)
    return cfg


def stage(resolution: str, steps: int, lr: float, start: str | None = None) -> ConfigDict:
    cfg = base.diffusion()
    cfg.seed = 0
    cfg.steps = steps
    cfg.start.stage = start
    cfg.model.in_channels = 32
    cfg.model.vec_in_dim = 64
    cfg.model.context_in_dim = 64
    cfg.model.hidden_size = 160
    cfg.model.num_heads = 5
    cfg.model.depth = 2
    cfg.model.depth_single_blocks = 4
    cfg.model.axes_dim = (8, 12, 12)
    cfg.model.theta = 100.0  # grids of five cells a side have no use for the slow rotations of 10,000
    cfg.model.patch_size = 1
    cfg.model.dtype = "float32"
    cfg.autoencoder.stage = "autoencoder"
    cfg.text = ConfigDict({**cfg.text, "width": 64, "max_length": 12})
    cfg.text_dropout = ConfigDict({"t5": 0.1, "clip": 0.1})
    cfg.data.buckets = ((resolution, 8, 1.0, 32),)
    cfg.data.cached = True
    cfg.checkpoint.every = 200
    from_scratch(cfg.optimizer, lr, steps)
    cfg.sample = ConfigDict({"frames": 8, "height": 80, "width": 80, "fps": 8, "steps": 20})
    cfg.sample.update(guidance=4.5, guidance_img=2.0, text_oscillation=False, image_oscillation=False, image_ramp=False)
    return cfg


def from_scratch(optimizer: ConfigDict, lr: float, steps: int) -> None:
    """Warm-up and cosine decay: short runs from scratch want both."""
    optimizer.update(lr=lr, b2=0.98, eps=1e-8, schedule="cosine", warmup_steps=50, decay_steps=steps)
    optimizer.update(final_lr_ratio=0.05, ema_decay=0.99)


def autoencoder_model() -> ConfigDict:
    """A Video DC-AE of stride 4 x 16 x 16: the released one's blocks and shortcuts, thinner and one stage shorter."""
    widths = (16, 16, 32, 64, 128)
    blocks = ("ResBlock", "ResBlock", "ResBlock", "ResBlock", "EViTS5_GLU")
    in_time = (False, False, True, True, False)
    model = ConfigDict()
    model.latent_channels = 32
    model.time_compression_ratio = 4
    model.spatial_compression_ratio = 16
    model.encoder = ConfigDict()
    model.encoder.width_list = widths
    model.encoder.depth_list = (0, 1, 1, 1, 1)
    model.encoder.block_type = blocks
    model.encoder.temporal_downsample = in_time
    model.decoder = ConfigDict()
    model.decoder.width_list = widths
    model.decoder.depth_list = (0, 1, 1, 2, 1)
    model.decoder.block_type = blocks
    model.decoder.temporal_upsample = in_time
    return model
