"""The whole curriculum in miniature, on a CPU: Video DC-AE, low-resolution T2V, T/I2V mix, higher-resolution T/I2V.

Command:   osjax demo            (or osjax demo --config.workdir=DIR; osjax demo --quick for a first look)
Hardware:  2 CPU cores, 3 GB
Time:      20 minutes of processor time; 13 to 15 by the clock on two cores of an EPYC beside other work
"""

from ml_collections import ConfigDict

from osjax.configs import base
from osjax.parts.demo import DemoReport
from osjax.parts.groups import group


def get_config() -> ConfigDict:
    return of_steps(autoencoder=800, t2v_low=400, i2v_low=200, i2v_high=1100)


def of_steps(autoencoder: int, t2v_low: int, i2v_low: int, i2v_high: int, side: int = 80) -> ConfigDict:
    """The demo with so many updates of each stage. side: of the clips and samples, in pixels."""
    low, high = "64px", f"{side}px"
    stages = {
        "autoencoder": autoencoder_stage(high, autoencoder, 8, 1.2e-3),
        "stage1_t2v_low": stage(low, t2v_low, 8e-3),
        "stage2_i2v_low": stage(low, i2v_low, 6e-3, start="stage1_t2v_low"),
        "stage3_i2v_high": stage(high, i2v_high, 6e-3, start="stage2_i2v_low"),
    }
    # Less is given than in the report: shapes without a given frame are what takes longest to learn.
    mix = {"t2v": 5.0, "i2v_head": 2.6, "i2v_loop": 0.2, "i2v_tail": 0.2}
    stages["stage2_i2v_low"].modes = ConfigDict(mix)
    stages["stage3_i2v_high"].modes = ConfigDict(mix)

    for name in list(stages)[1:]:
        stages[name].sample.update(height=side, width=side)

    cfg = base.curriculum("demo", stages)
    cfg.clips.train = 1536
    cfg.clips.held_out = 96
    cfg.clips.frames = 8
    cfg.clips.size = side  # pixels of the rendered clips
    cfg.clips.fps = 8

    cfg.report = group(DemoReport)
    return cfg


def autoencoder_stage(resolution: str, steps: int, batch: int, lr: float) -> ConfigDict:
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
    cfg.model.vec_in_dim = 128
    cfg.model.context_in_dim = 128
    cfg.model.hidden_size = 160
    cfg.model.num_heads = 5
    cfg.model.depth = 2
    cfg.model.depth_single_blocks = 4
    cfg.model.axes_dim = (8, 12, 12)
    cfg.model.theta = 100.0  # grids of five cells a side have no use for the slow rotations of 10,000
    cfg.model.patch_size = 2
    cfg.model.dtype = "float32"
    cfg.autoencoder.stage = "autoencoder"
    cfg.text = ConfigDict({**cfg.text, "width": 128, "max_length": 16})
    cfg.text_dropout = ConfigDict({"t5": 0.1, "clip": 0.1})
    cfg.data.buckets = ((resolution, 8, 1.0, 32),)
    cfg.data.cached = True
    cfg.data.state_motion = True
    # What moves where is decided close to noise, which the shift that follows from a few dozen tokens hardly visits.
    cfg.shift = 4.0
    cfg.checkpoint.every = 200
    from_scratch(cfg.optimizer, lr, steps)
    cfg.sample = ConfigDict({"frames": 8, "height": 80, "width": 80, "fps": 8, "steps": 20, "alpha": 4.0})
    cfg.sample.update(guidance=2.0, guidance_img=2.0, text_oscillation=False, image_oscillation=False, image_ramp=False)
    cfg.sample.motion_score = 4
    return cfg


def from_scratch(optimizer: ConfigDict, lr: float, steps: int) -> None:
    """Muon, with warm-up and a cosine decay to the last of so many steps: short runs from scratch want all three."""
    optimizer.update(name="muon", lr=lr, b2=0.98, eps=1e-8, schedule="cosine")
    optimizer.update(warmup_steps=min(50, steps // 4), final_lr_ratio=0.05, ema_decay=0.99)


def autoencoder_model() -> ConfigDict:
    """A Video DC-AE of stride 4 x 8 x 8 and 8 channels: the released one's residual blocks and shortcuts, thinner and
    two stages shorter.
    """
    in_time = (False, True, True, False)
    model = ConfigDict()
    model.latent_channels = 8
    model.time_compression_ratio = 4
    model.spatial_compression_ratio = 8
    model.encoder = ConfigDict()
    model.encoder.width_list = (16, 16, 32, 64)
    model.encoder.depth_list = (0, 1, 1, 1)
    model.encoder.block_type = "ResBlock"
    model.encoder.temporal_downsample = in_time
    model.decoder = ConfigDict()
    model.decoder.width_list = (16, 32, 64, 128)
    model.decoder.depth_list = (0, 1, 2, 2)
    model.decoder.block_type = "ResBlock"
    model.decoder.temporal_upsample = in_time
    return model
