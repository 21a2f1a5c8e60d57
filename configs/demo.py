"""The whole curriculum in miniature, on a CPU: Video DC-AE, low-resolution T2V, T/I2V mix, higher-resolution I2V.

Command:   osjax demo            (or osjax demo --config.workdir=DIR)
Hardware:  2 CPU cores, 6 GB
Time:      under 20 minutes
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    cfg = ConfigDict()
    cfg.seed = 0
    cfg.workdir = "runs/demo"
    cfg.mesh = ConfigDict({"data": -1, "fsdp": 1, "sequence": 1, "tensor": 1})  # sizes; -1 takes the devices left

    cfg.data = ConfigDict()
    cfg.data.train_clips = 1152
    cfg.data.held_out_clips = 96
    cfg.data.frames = 8
    cfg.data.size = 80  # pixels of the rendered clips
    cfg.data.fps = 8
    cfg.data.low = 64  # pixels of stages 1 and 2
    cfg.data.high = 80  # pixels of stage 3

    cfg.autoencoder = ConfigDict()
    cfg.autoencoder.model = autoencoder_model()
    cfg.autoencoder.steps = 1400
    cfg.autoencoder.batch = 8  # clips
    cfg.autoencoder.mse_weight = 4.0  # beside L1
    cfg.autoencoder.crop = 32  # pixels of random cuts to train on; 0 takes whole clips
    cfg.autoencoder.image_weight = 0.2  # loss on single frames, for given first frames
    cfg.autoencoder.optimizer = optimizer(lr=6e-4, steps=1400, ema_decay=0.99)

    cfg.text = ConfigDict({"width": 64, "max_length": 12})  # built-in encoder: features, words
    cfg.model = ConfigDict()
    cfg.model.in_channels = 32
    cfg.model.vec_in_dim = 64
    cfg.model.context_in_dim = 64
    cfg.model.hidden_size = 160
    cfg.model.mlp_ratio = 4.0
    cfg.model.num_heads = 5
    cfg.model.depth = 2
    cfg.model.depth_single_blocks = 4
    cfg.model.axes_dim = (8, 12, 12)  # head dimensions for frame, row, column
    cfg.model.theta = 100.0  # rotary base: grids of five cells a side have no use for the slow rotations of 10,000
    cfg.model.patch_size = 1

    cfg.text_dropout = 0.1  # of states and pooled vector, each on its own
    cfg.stages = ConfigDict()  # run in the order of their names, each from the weights of the one before
    cfg.stages.stage1_t2v_low = stage("low", 1000, 32, 2e-3, {"t2v": 1.0})
    mix = {"t2v": 4.0, "i2v_head": 3.5, "i2v_loop": 0.25, "i2v_tail": 0.25}
    cfg.stages.stage2_i2v_low = stage("low", 500, 32, 1.5e-3, mix)
    cfg.stages.stage3_i2v_high = stage("high", 1200, 32, 1.5e-3, mix)

    cfg.sample = ConfigDict()
    cfg.sample.prompts = 96  # held-out prompts
    cfg.sample.i2v = 16  # given first frames
    cfg.sample.steps = 20
    cfg.sample.guidance = 3.0  # on the text, without a given frame
    cfg.sample.i2v_guidance = 2.0  # on the text, with one: more of it pulls away from the frame
    cfg.sample.guidance_img = 1.5  # on the given frame
    cfg.sample.batch = 32
    return cfg


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


def optimizer(lr: float, steps: int, ema_decay: float) -> ConfigDict:
    """AdamW with warm-up and cosine decay: short runs from scratch want both."""
    cfg = ConfigDict({"lr": lr, "b1": 0.9, "b2": 0.98, "eps": 1e-8, "weight_decay": 0.0, "clip_norm": 1.0})
    cfg.schedule = "cosine"
    cfg.warmup_steps = 50
    cfg.decay_steps = steps
    cfg.final_lr_ratio = 0.05
    cfg.accumulate = 1
    cfg.ema_decay = ema_decay
    return cfg


def stage(resolution: str, steps: int, batch: int, lr: float, modes: dict[str, float]) -> ConfigDict:
    """A stage of the curriculum: resolution is `low` or `high`; modes are condition modes with their weights."""
    cfg = ConfigDict({"resolution": resolution, "steps": steps, "batch": batch})
    cfg.modes = ConfigDict(modes)
    cfg.optimizer = optimizer(lr, steps, ema_decay=0.99)
    return cfg
