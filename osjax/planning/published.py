"""The published cost of Open-Sora 2.0 against this planner's arithmetic: does it reproduce what was paid?

Source: "Open-Sora 2.0: Training a Commercial-Level Video Generation Model in $200k", Table 2 (iterations, GPUs and
GPU-days), section 6 (utilisation), Appendix D (batches and throughput), Figure 4 (gains of deep compression).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache, partial
from math import prod
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from osjax import models
from osjax.models import velocity, video_flops
from osjax.models.mmdit.config import MMDiTConfig
from osjax.ops import flops
from osjax.planning import cost
from osjax.planning.targets import CHIPS
from osjax.types import LatentBatch

PEAK = CHIPS["h200"].tflops * 1e12
TEXT = 512  # tokens
# Fitted, once each. The first makes the longest 256px bucket last the published 7.5 s; the second is the ratio of paid
# GPU-days to steps at table speed, the same for all three stages.
ENCODER_UTILISATION = 0.11
OVERHEAD = 1.4

HUNYUAN = models.config("mmdit", dtype="bfloat16", remat="full")
DEEP = replace(HUNYUAN, in_channels=128, patch_size=1)


@dataclass(frozen=True)
class Stage:
    """A stage of the published training.

    config: the stage's name in configs/curriculum.py. iterations, gpus, gpu_days: Table 2. utilisation: share of the
    peak as published, which fits its tables when recomputed passes count. model: config of the video model. bucket: the
    slowest one's (frames, side in pixels, batch of a group). group: GPUs that share a sequence, each of which encodes
    the group's clips. seconds: of a step, by the throughput in Appendix D.
    """

    name: str
    config: str
    iterations: int
    gpus: int
    gpu_days: float
    utilisation: float
    model: MMDiTConfig
    bucket: tuple[int, int, int]
    group: int
    seconds: float

    @property
    def clips(self) -> int:
        """Clips of the slowest bucket in one step of all GPUs."""
        return self.bucket[2] * self.gpus // self.group


SHORT = replace(HUNYUAN, remat_blocks=(8, 100), cond_embed=False)
COND = replace(SHORT, cond_embed=True)
STAGES = (
    Stage("stage 1: 256px T2V", "stage1_t2v_256", 85_000, 224, 2240.0, 0.3819, SHORT, (129, 256, 3), 1, 7.5),
    Stage("stage 2: 256px T/I2V", "stage2_i2v_256", 13_000, 192, 384.0, 0.3819, COND, (129, 256, 3), 1, 7.5),
    Stage("stage 3: 768px T/I2V", "stage3_i2v_768", 13_000, 192, 1536.0, 0.3575, HUNYUAN, (129, 768, 2), 4, 50.0),
)


@dataclass(frozen=True)
class Check:
    """A figure of the report, what this planner makes of it, and the share that it may be off by."""

    what: str
    published: float
    planned: float
    within: float

    @property
    def good(self) -> bool:
        return abs(self.planned / self.published - 1) <= self.within


def checks() -> list[Check]:
    """All checks. The first three rows are the step times that the GPU-days follow from."""
    steps = {stage.name: step_seconds(stage) for stage in STAGES}
    rows = [Check(f"{s.name}, seconds of a step", s.seconds, steps[s.name], 0.25) for s in STAGES]
    for s in STAGES:
        days = s.iterations * steps[s.name] * s.gpus / 86_400 * OVERHEAD
        rows.append(Check(f"{s.name}, GPU-days", s.gpu_days, days, 0.25))
    total = sum(check.planned for check in rows[-3:])
    rows.append(Check("three stages, k$ at 2 $ an hour", 199.6, total * 24 * 2 / 1000, 0.25))
    rows.append(Check("training on 4x32x32 latents, clips per second against 4x8x8", 5.2, training_gain(), 0.5))
    rows.append(Check("sampling on 4x32x32 latents, time of 4x8x8 against theirs", 1656 / 162, sampling_gain(), 1 / 3))
    return rows


def steps_for_as_many_clips(config: str, rows: int) -> int | None:
    """Steps of `rows` clips of the slowest bucket that see what the published stage saw; None for other stages.

    config: the stage's name in configs/curriculum.py.
    """
    for stage in STAGES:
        if stage.config == config:
            return -(-stage.iterations * stage.clips // rows)
    return None


def step_seconds(stage: Stage) -> float:
    """Seconds of a step: the model's passes at the published utilisation, and the encoding of the batch."""
    frames, side, rows = stage.bucket
    family = "dcae" if stage.model.patch_size == 1 else "hunyuan"
    batch = _batch(stage.model, family, frames, side, rows)
    forward = video_flops.forward_flops(stage.model, batch)
    executed = cost.executed_flops(stage.model, forward, rows, video_flops.tokens(stage.model, batch) // rows)
    encode = rows * autoencoder_flops(family, frames, side, "encode")
    return executed / (stage.group * stage.utilisation * PEAK) + encode / (ENCODER_UTILISATION * PEAK)


def training_gain() -> float:
    """Figure 4: eight GPUs at 768px, 4x8x8 with two clips for four GPUs against 4x32x32 with two for each."""
    deep = replace(STAGES[2], model=DEEP, bucket=(128, 768, 2), group=1)
    return (2 / step_seconds(deep)) / (2 / 4 / step_seconds(STAGES[2]))


def sampling_gain() -> float:
    """Figure 4: one GPU, 768px, 50 steps of three passes, and the decoding."""

    def seconds(model: MMDiTConfig, family: str, frames: int) -> float:
        forward = video_flops.forward_flops(model, _batch(model, family, frames, 768, 1))
        decode = autoencoder_flops(family, frames, 768, "decode")
        return 150 * forward / (STAGES[2].utilisation * PEAK) + decode / (ENCODER_UTILISATION * PEAK)

    return seconds(HUNYUAN, "hunyuan", 129) / seconds(DEEP, "dcae", 128)


SHORT = (2, 3, 4)  # latent frames, after a first one that stands alone


@lru_cache
def autoencoder_flops(family: str, frames: int, side: int, method: str, config: Any = None) -> int:
    """FLOPs of one whole clip, encoded or decoded without tiles.

    family: of the autoencoder. frames, side: of the clip, a square in pixels. method: "encode" or "decode". config: of
    the family; None: its released one.
    """
    cfg = config or models.config(family)
    module, params = models.build(cfg), nn.unbox(models.abstract_params(cfg))
    shape = (frames, side, side, 3)
    if method == "decode":
        shape = (*module.latent_shape(frames, side, side), cfg.latent_channels)
    run: Callable[..., Any] = partial(module.apply, method=method)
    return flops.of_program(run, {"params": params}, jax.ShapeDtypeStruct((1, *shape), jnp.float32))


def encoding_flops(family: str, frames: int, side: int, config: Any = None) -> int:
    """What `autoencoder_flops` gives of encoding, without a trace of its own for every number of frames.

    Convolutions grow with the frames and attention with their square, so three short clips tell the long ones exactly.
    family, frames, side, config: as there.
    """
    stride = models.build(config or models.config(family)).stride
    first = 1 if stride.causal else 0
    count = (frames - first) // stride.time
    if count <= max(SHORT) or (frames - first) % stride.time:
        return autoencoder_flops(family, frames, side, "encode", config)
    known = {n: autoencoder_flops(family, first + stride.time * n, side, "encode", config) for n in SHORT}
    total = Fraction(0)
    for n, value in known.items():
        others = [m for m in SHORT if m != n]
        total += value * Fraction(prod(count - m for m in others), prod(n - m for m in others))
    return int(total)


def _batch(model: MMDiTConfig, family: str, frames: int, side: int, rows: int) -> LatentBatch:
    cfg = models.config(family)
    latent = (*models.build(cfg).latent_shape(frames, side, side), cfg.latent_channels)
    return velocity.batch_of(model, latent, rows, TEXT, None)


def table() -> str:
    """The checks as a table in Markdown."""
    lines = ["| figure | published | planned | ratio | within |", "|---|--:|--:|--:|--:|"]
    for check in checks():
        figures = f"{check.published:,.4g} | {check.planned:,.4g} | {check.planned / check.published:.2f}"
        lines.append(f"| {check.what} | {figures} | {check.within:.0%}: {'yes' if check.good else 'NO'} |")
    return "\n".join(lines)
