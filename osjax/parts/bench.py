"""The config keys of `osjax bench`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ml_collections import ConfigDict

from osjax import models
from osjax.errors import UserError
from osjax.parts import dtype
from osjax.parts.autoencoder import AutoencoderKeys
from osjax.parts.clips import ClipSet
from osjax.parts.data import DataKeys
from osjax.parts.groups import group, refuse
from osjax.parts.stage import MeshKeys, check_optimizer
from osjax.training.optimizer import OptimizerConfig

WORKS = ("train", "denoise", "train_autoencoder", "encode", "decode", "t5", "data")


@dataclass(frozen=True)
class VideoSize:
    """The video that `train` and `denoise` work on, in frames and pixels."""

    frames: int = 129
    height: int = 256
    width: int = 256


@dataclass(frozen=True)
class BenchAutoencoder(AutoencoderKeys):
    """The autoencoder that `encode`, `decode` and `train_autoencoder` run; it has random weights."""

    family: str = "hunyuan"
    frames: int = 33  # a whole video, or the largest tile
    size: int = 256  # pixels of a side
    batch: int = 1

    def __post_init__(self):
        if min(self.frames, self.size, self.batch) < 1:
            raise UserError(f"frames {self.frames}, size {self.size} and batch {self.batch} must be 1 or more")
        if self.weights:
            raise UserError("bench runs random weights: leave autoencoder.weights out", status=2)


@dataclass(frozen=True)
class T5Keys:
    """The text encoder that `t5` runs."""

    config: Mapping[str, Any] = field(default_factory=dict)  # keys of T5Config; empty is T5-XXL
    batch: int = 1


@dataclass(frozen=True)
class BenchKeys:
    """What `osjax bench` is told."""

    work: tuple[str, ...] = ("train", "denoise", "encode", "decode", "t5", "data")  # what is measured, in this order
    seed: int = 0  # of weights and inputs
    warmup: int = 1  # calls that are not timed
    repeats: int = 5  # calls that are; medians are reported
    mesh: MeshKeys = MeshKeys()
    dtype: str = "bfloat16"  # of weights and computation when sampling; training computes in model.dtype
    peak_tflops: float | None = None  # of one device, for MFU; none: known by the device's name, else measured
    family: str = "mmdit"  # of the video model
    model: Mapping[str, Any] = field(default_factory=dict)  # keys of its config
    blocks: tuple[int, ...] = ()  # (double, single) instead of the model's depths
    optimizer: OptimizerConfig = OptimizerConfig()
    video: VideoSize = VideoSize()
    text_tokens: int = 512
    train_batch: int = 1  # of one data-parallel device
    denoise_batch: int = 1
    autoencoder: BenchAutoencoder = BenchAutoencoder()
    t5: T5Keys = T5Keys()
    clips: ClipSet = ClipSet()  # procedural clips that data.source is made of where it names none
    data: DataKeys = DataKeys()

    def __post_init__(self):
        for name in self.work:
            if name not in WORKS:
                raise UserError(f"unknown work {name!r}: use some of {', '.join(WORKS)}", status=2)
        if self.repeats < 1 or self.warmup < 0:
            raise UserError(f"repeats {self.repeats} must be 1 or more, warmup {self.warmup} 0 or more", status=2)
        if min(self.text_tokens, self.train_batch, self.denoise_batch, self.t5.batch) < 1 or self.seed < 0:
            raise UserError("text_tokens, train_batch, denoise_batch and t5.batch must be 1 or more, seed 0 or more")
        if self.peak_tflops is not None and not self.peak_tflops > 0:
            raise UserError(f"peak_tflops is {self.peak_tflops}: give TFLOP/s, or none")
        if self.blocks and (len(self.blocks) != 2 or min(self.blocks) < 0 or not any(self.blocks)):
            raise UserError(f"blocks {self.blocks} must be two counts, double and single, such as 2,4", status=2)
        dtype.named(self.dtype, "dtype")
        check_optimizer(self.optimizer, "optimizer")
        read = ("source", "buckets", "batch_per_device", "fps_max", "random_start", "threads", "workers", "timeout_s")
        refuse(self.data, "data", read, "`data` measures the reading of clips alone")


def keys() -> ConfigDict:
    """The keys of a bench config, for config files to change."""
    cfg = group(BenchKeys)
    cfg.model = group(models.config_class("mmdit"), dtype="bfloat16")
    del cfg.optimizer["freeze"]  # nothing is frozen
    return cfg
