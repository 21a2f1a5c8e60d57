"""Every key of `osjax bench`, with units. A config file starts from `options()` and changes sizes."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs import base


def options() -> ConfigDict:
    cfg = ConfigDict()
    cfg.work = ("train", "denoise", "encode", "decode", "t5", "data")  # what is measured, in this order
    cfg.seed = 0  # of weights and inputs
    cfg.warmup = 1  # calls that are not timed
    cfg.repeats = 5  # calls that are; medians are reported
    cfg.mesh = ConfigDict({"data": -1, "fsdp": 1, "sequence": 1, "tensor": 1})  # sizes; -1 takes the devices left
    cfg.dtype = "bfloat16"  # of weights and computation when sampling; training computes in model.dtype
    cfg.peak_tflops = placeholder(float)  # of one device, for MFU; none: known by the device's name, else measured
    cfg.model = base.diffusion().model
    cfg.blocks = ()  # (double, single) instead of the model's depths
    cfg.optimizer = base.optimizer()
    cfg.video = ConfigDict({"frames": 129, "height": 256, "width": 256})  # of train and denoise, in frames and pixels
    cfg.text_tokens = 512
    cfg.train_batch = 1  # of one data-parallel device
    cfg.denoise_batch = 1
    cfg.autoencoder = ConfigDict({"family": "hunyuan", "config": ConfigDict()})  # keys of its family's config
    cfg.autoencoder.dtype = "float32"  # of its weights
    cfg.autoencoder.frames = 33  # of encode and decode: a whole video, or the largest tile
    cfg.autoencoder.size = 256  # pixels of a side
    cfg.autoencoder.batch = 1
    cfg.t5 = ConfigDict({"config": ConfigDict(), "batch": 1})
    cfg.clips = base.run("").clips  # procedural clips that data.source is made of where it names none
    cfg.data = base.data()
    return cfg


def released(resolution: int, frames: int) -> ConfigDict:
    """The 11B model as its stages train it. resolution: pixels of a square's side."""
    cfg = options()
    cfg.model.attention = "flash"
    cfg.model.remat = "full"
    cfg.mesh.fsdp = -1
    cfg.mesh.data = 1
    cfg.video.update(frames=frames, height=resolution, width=resolution)
    cfg.clips.update(train=32, frames=33, size=256, fps=24)
    cfg.data.buckets = (("256px", 33, 1.0, 8),)
    cfg.data.threads = 8
    return cfg
