"""A diffusion stage of a config on the devices of a target: its buckets, what it needs and what it costs."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import cast

import jax
from jax.sharding import AbstractMesh, Mesh

from osjax import models
from osjax.errors import UserError
from osjax.models import velocity, video_flops
from osjax.models.mmdit.config import MMDiTConfig
from osjax.parallel import mesh as device_mesh
from osjax.parts.diffusion import DiffusionRecipe
from osjax.planning import aot, cost, kernels, memory, program, published, targets
from osjax.stages.stage import count_parameters
from osjax.types import Json, LatentBatch
from osjax.weights.lora import blank

FULL = 0.95  # of a device's memory that a program may take: the rest goes to the runtime and its fragments


@dataclass(frozen=True)
class Stage:
    """A stage of the video model on the devices of a target, None for those that are here.

    recipe: made with the mesh of `target_mesh`.
    """

    recipe: DiffusionRecipe
    target: targets.Target | None

    @property
    def mesh(self) -> Mesh | AbstractMesh:
        """The mesh of the stage."""
        return self.recipe.mesh

    @property
    def model_cfg(self) -> MMDiTConfig:
        """The config of the video model, of the family whose blocks the planner's arithmetic knows."""
        return cast(MMDiTConfig, self.recipe.model)

    @property
    def ways(self) -> dict[str, int]:
        """Sizes of the mesh axes."""
        return dict(self.mesh.shape)

    def batch(self, bucket: "Bucket") -> LatentBatch:
        """A bucket's batch as shapes with shardings."""
        return velocity.batch_of(self.model_cfg, bucket.latent, bucket.rows, self.recipe.text.tokens, self.mesh)

    def step(self, bucket: "Bucket") -> program.TrainStep:
        """The train step on a bucket's batch as shapes. UserError for a stage with a teacher, which is not counted."""
        if self.recipe.taught is not None:
            raise UserError(f"{self.recipe.name} distils: plans do not count a teacher yet, so plan its other stages")
        adapters = self.recipe.adapters, self.recipe.keys.lora.base_dtype
        return program.train_step(self.model_cfg, self.recipe.optimizer, self.mesh, self.batch(bucket), *adapters)

    @cached_property
    def trained(self) -> int:
        """Number of parameters that train."""
        if self.recipe.adapters is not None:
            return sum(x.size for x in jax.tree.leaves(blank(self.recipe.model, self.recipe.adapters)))
        return count_parameters(self.model_cfg)

    def estimate(self, state_bytes: int, rows: int, tokens: int) -> memory.Estimate:
        """Bytes of the train step on one device by arithmetic.

        state_bytes: of one device. rows: of the whole batch. tokens: of one row, text included.
        """
        kind = self.recipe.adapters is not None
        return memory.estimate(self.model_cfg, self.trained, state_bytes, self.ways, rows, tokens, kind)

    def buckets(self) -> list["Bucket"]:
        """One of each number of tokens, the longest sequence first. Aspect ratios differ by a few tokens."""
        part, largest = self.recipe.autoencoder, {}
        module = part.module
        for rows, frames, height, width, _ in self.recipe.table.every_shape():
            latent = (*module.latent_shape(frames, height, width), part.model.latent_channels)
            bucket = Bucket(frames, height, width, rows, latent)
            key = rows, frames, height * width // 4096
            if key not in largest or bucket.pixels > largest[key].pixels:
                largest[key] = bucket
        by_name: dict[tuple, Bucket] = {}
        for bucket in sorted(largest.values(), key=lambda b: -b.pixels):
            by_name.setdefault((bucket.frames, bucket.rows), bucket)
        return sorted(by_name.values(), key=lambda b: -b.pixels)


@dataclass(frozen=True)
class Bucket:
    """One shape of batch: frames, height and width in pixels of a clip, rows of all devices, and `latent`, (T, H, W, C)
    of one row."""

    frames: int
    height: int
    width: int
    rows: int
    latent: tuple[int, int, int, int]

    @property
    def pixels(self) -> int:
        """Pixels of one clip, all frames together."""
        return self.frames * self.height * self.width


def target_mesh(
    target: targets.Target, compiled: bool, sizes: Mapping[str, int] | None = None
) -> Callable[..., Mesh | AbstractMesh]:
    """What makes the mesh of a stage on a target, for `osjax.parts.run.of_config`.

    compiled: on devices that the target's compiler knows; else on absent ones. sizes: for all stages, instead of those
    of their configs.
    """
    devices = aot.devices(target) if compiled else None

    def make(**own: int) -> Mesh | AbstractMesh:
        wanted = {**own, **(sizes or {})}
        if devices is None:
            return device_mesh.absent(**wanted, count=target.devices)
        return device_mesh.make(**wanted, devices=devices)

    return make


def plan(recipe: DiffusionRecipe, target: targets.Target, compiled: bool, mfu: float | None = None) -> Json:
    """Everything about a stage on a target as plain values. The bucket that needs the most memory is compiled.

    recipe: of the stage, on the mesh of `target_mesh`. compiled: whether the target's compiler is here. mfu: the
    utilisation to expect; None: what the original reached.
    """
    planned = Stage(recipe, target)
    capacity = planned.target.chip.hbm_gb * 1e9
    buckets = planned.buckets()
    state = planned.step(buckets[0]).state
    rows = [of_bucket(planned, bucket, program.bytes_per_device(state), mfu) for bucket in buckets]
    row, bucket = max(zip(rows, buckets, strict=True), key=lambda pair: pair[0]["estimate"]["peak"])
    whole = encoding = None  # the step, and the encoding of its batch, as the compiler sees them
    if compiled:
        whole = aot.compile_program(planned.step(bucket).lower(), planned.mesh)
        if not planned.recipe.keys.data.cached:
            encoding = aot.compile_program(encode_program(planned, buckets)(), planned.mesh)
    parameters = count_parameters(planned.model_cfg)
    size = bucket.rows, row["tokens"]
    sent = (
        whole.collectives
        if whole and whole.collectives is not None
        else cost.collectives_of(planned.model_cfg, parameters, *size, planned.ways, planned.target.chip.platform)
    )
    state_bytes = row["estimate"]["state"]
    work = (planned.model_cfg, row["forward_flops"], *size, state_bytes, planned.ways, sent, planned.target)
    bound, by_kernel = cost.bound(*work), kernels.expected(*work)
    encoders = encoder_bytes(planned)
    peak = whole.peak if whole else row["estimate"]["peak"]
    if encoding:  # between two steps: beside the state, instead of what a step works with
        video = max(12 * b.pixels * b.rows for b in buckets) // (planned.ways["data"] * planned.ways["fsdp"])  # float32
        peak = max(peak, row["estimate"]["state"] + video + encoding.temporaries + encoding.output)
    peak += encoders
    seconds = max(row["seconds"] for row in rows)
    return {
        "stage": planned.recipe.name,
        "mesh": planned.ways,
        "parameters": parameters,
        **_cost(planned, planned.recipe.keys.steps, seconds),
        "capacity_bytes": round(capacity),
        "encoder_bytes": encoders,
        "peak_bytes": peak,
        "fits": peak <= FULL * capacity,
        "largest": row,
        "compiled": asdict(whole) if whole else None,
        "encoding": asdict(encoding) if encoding else None,
        "collectives": [asdict(c) for c in sent],
        "bound": {
            **asdict(bound),
            "seconds": bound.seconds,
            "by": bound.by,
            "mfu": bound.mfu(row["forward_flops"], planned.target),
        },
        "kernels": {
            **asdict(by_kernel),
            "seconds": by_kernel.seconds,
            "mfu": by_kernel.mfu(row["forward_flops"], planned.target),
            "rates": kernels.rates(planned.target).says,
        },
        "buckets": rows,
        "seconds": seconds,
        "as_published": _as_published(planned, buckets[0].rows, seconds),
    }


def _cost(planned: Stage, steps: int, seconds: float) -> dict[str, float]:
    days = steps * seconds / 86_400
    dollars = days * 24 * planned.target.devices * planned.target.chip.dollars
    return {"steps": steps, "days": days, "dollars": dollars}


def _as_published(planned: Stage, rows: int, seconds: float) -> dict[str, float] | None:
    """What as many clips as Open-Sora 2.0 trained this stage on would take: its step had another number of clips."""
    steps = published.steps_for_as_many_clips(planned.recipe.name, rows)
    return None if steps is None else _cost(planned, steps, seconds)


def expected_mfu(planned: Stage, forward_flops: int, rows: int, tokens: int, mfu: float | None) -> float:
    """The utilisation to expect, 0 to 1: `mfu` where it is given, else what the original's products reached, less the
    share of those done again.

    planned: the stage. forward_flops: of one forward pass over the whole batch. rows: clips of that batch. tokens: of
    one row, text included.
    """
    if mfu is not None:
        return mfu
    reached = 0.3575 if planned.ways["sequence"] > 1 else 0.3819
    return reached * 3 * forward_flops / cost.executed_flops(planned.model_cfg, forward_flops, rows, tokens)


def of_bucket(planned: Stage, bucket: Bucket, state_bytes: int, mfu: float | None) -> Json:
    """A bucket's size, work, memory by arithmetic, and the time to expect, as plain values.

    planned: the stage. bucket: one of its own. state_bytes: of the train state on one device. mfu: as `expected_mfu`
    takes it.
    """
    batch = planned.batch(bucket)
    tokens = video_flops.tokens(planned.model_cfg, batch) // bucket.rows
    forward = video_flops.forward_flops(planned.model_cfg, batch)
    encode = 0.0
    if not planned.recipe.keys.data.cached:
        # Devices that share a sequence encode the same clips, each for itself.
        copies = planned.ways["sequence"] * planned.ways["tensor"]
        encode = bucket.rows * copies * encode_flops(planned, bucket)
    guess = planned.estimate(state_bytes, bucket.rows, tokens)
    expected = expected_mfu(planned, forward, bucket.rows, tokens, mfu)
    seconds = cost.expected_seconds(forward, encode, planned.target, expected, published.ENCODER_UTILISATION)
    return {
        "frames": bucket.frames,
        "height": bucket.height,
        "width": bucket.width,
        "batch": bucket.rows,
        "tokens": tokens,
        "forward_flops": forward,
        "encode_flops": encode,
        "estimate": {**asdict(guess), "peak": guess.peak},
        "mfu": expected,
        "seconds": seconds,
        "clips_per_s": bucket.rows / seconds,
    }


def encode_program(planned: Stage, buckets: list[Bucket]) -> Callable[[], jax.stages.Lowered]:
    """What lowers the program that encodes a batch of the bucket with the most pixels at a time.

    planned: the stage. buckets: of the stage.
    """
    groups = planned.ways["data"] * planned.ways["fsdp"]
    at_once = planned.recipe.keys.autoencoder.at_once

    def rows(bucket: Bucket) -> int:
        mine = -(-bucket.rows // groups)
        return groups * (min(at_once, mine) if at_once else mine)

    most = max(buckets, key=lambda b: b.pixels * rows(b))
    size = most.frames, most.height, most.width
    return program.encode(planned.recipe.autoencoder.module, size, rows(most), planned.mesh)


def encode_flops(planned: Stage, bucket: Bucket) -> float:
    """FLOPs that encode one clip of a bucket; counted on a square of the same area, which encodes as much."""
    space = models.build(planned.recipe.autoencoder.model).stride.space
    side = max(1, round((bucket.height * bucket.width) ** 0.5 / space)) * space
    part = planned.recipe.autoencoder
    whole = published.encoding_flops(models.family_of(part.model), bucket.frames, side, part.model)
    return whole * bucket.height * bucket.width / side**2


def encoder_bytes(planned: Stage) -> int:
    """Bytes on one device of the autoencoder, float32, and of the text encoders, bfloat16, split over a host's devices.

    Latents that are cached need no autoencoder, cached texts no encoder, and the built-in one has no weights.
    """
    total = 4 * count_parameters(planned.recipe.autoencoder.model) if not planned.recipe.keys.data.cached else 0
    if planned.recipe.text.t5 and not planned.recipe.keys.data.cached_text:
        text = 2 * sum(count_parameters(models.config(family)) for family in ("t5", "clip_text"))
        total += text // planned.target.host_devices
    return total
