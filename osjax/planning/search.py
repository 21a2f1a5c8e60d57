"""`osjax plan --search`: meshes, rematerialisation and batches that fit, the fastest first, by arithmetic.

The published search (Open-Sora 2.0, Appendix D) in three rules: the most tokens a device holds set the batch of the
longest bucket; the others take the largest batch that fits and lasts no longer; encoding counts.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from osjax.models import video_flops
from osjax.models.mmdit.config import MMDiTConfig
from osjax.pages import plan as plan_page
from osjax.parallel import mesh as device_mesh
from osjax.parts.diffusion import DiffusionRecipe
from osjax.parts.video_model import SPLIT, automatic_attention
from osjax.planning import cost, memory, program, published, targets
from osjax.planning.stage import FULL, Bucket, Stage, encode_flops, encoder_bytes, expected_mfu
from osjax.stages.stage import count_parameters

REMAT = ("none", "save_attention", "full", "offload", "offload_save_attention")
WHOLE = (0, 8, 16)  # single blocks that keep everything, whatever the others do
LARGEST = 512  # clips of one data-parallel group
SHOWN = 8


@dataclass(frozen=True)
class Candidate:
    """A mesh and a policy with the batch of each bucket. clips_per_s, seconds: of the longest bucket.

    whole: blocks that keep everything although the policy is another.
    """

    mesh: Mapping[str, int]
    remat: str
    whole: int
    batches: Mapping[Bucket, int]
    seconds: float
    clips_per_s: float
    bound_mfu: float
    peak_bytes: int


def best(recipe: DiffusionRecipe, target: targets.Target, mfu: float | None) -> list[Candidate]:
    """The fastest few candidates that fit.

    recipe: of a stage of the video model, on any mesh of the target. mfu: the utilisation to expect; None: what the
    original reached.
    """
    planned, candidates = Stage(recipe, target), []
    for sizes in _meshes(planned):
        mesh = device_mesh.absent(**sizes, count=planned.target.devices)
        model_cfg = replace(planned.model_cfg, remat_blocks=None, attention=_attention(planned, sizes))
        here = _with(planned, mesh=mesh, model=model_cfg)
        shapes = here.step(here.buckets()[0]).state
        for policy in _policies(model_cfg):
            candidate = _candidate(_with(here, model=policy), program.bytes_per_device(shapes), mfu)
            if candidate:
                candidates.append(candidate)
    return sorted(candidates, key=lambda c: (-round(c.clips_per_s, 4), -c.bound_mfu, c.peak_bytes))[:SHOWN]


def _with(planned: Stage, **changes: Any) -> Stage:
    return replace(planned, recipe=replace(planned.recipe, **changes))


def _policies(model_cfg: MMDiTConfig) -> Iterator[MMDiTConfig]:
    """The model with each policy, and with some of its single blocks left out of it."""
    for remat in REMAT:
        yield replace(model_cfg, remat=remat, remat_blocks=None)
        for whole in WHOLE[1:]:
            if remat != "none" and whole < model_cfg.depth_single_blocks:
                some = model_cfg.depth, model_cfg.depth_single_blocks - whole
                yield replace(model_cfg, remat=remat, remat_blocks=some)


def _attention(planned: Stage, sizes: Mapping[str, int]) -> str:
    """What suits the mesh; what the config says where nothing is split."""
    if sizes["sequence"] == 1 and planned.model_cfg.attention not in SPLIT:
        return planned.model_cfg.attention
    return automatic_attention("gpu", sizes["sequence"], planned.model_cfg.num_heads)["attention"]


def _meshes(planned: Stage) -> Iterator[dict[str, int]]:
    devices = planned.target.devices
    for sequence in (1, 2, 4, 8):
        for fsdp in (1, 2, 4, 8, 16, 32, 64, 128):
            if devices % (sequence * fsdp) == 0:
                yield {"data": devices // sequence // fsdp, "fsdp": fsdp, "sequence": sequence, "tensor": 1}


def _candidate(planned: Stage, state: int, mfu: float | None) -> Candidate | None:
    groups = planned.ways["data"] * planned.ways["fsdp"]
    buckets = planned.buckets()
    room = FULL * planned.target.chip.hbm_gb * 1e9 - encoder_bytes(planned)
    parameters = count_parameters(planned.model_cfg)

    def tokens(bucket: Bucket) -> int:
        return video_flops.tokens(planned.model_cfg, planned.batch(bucket)) // bucket.rows

    def peak(bucket: Bucket, each: int) -> int:
        return planned.estimate(state, each * groups, tokens(bucket)).peak

    def seconds(bucket: Bucket, each: int) -> float:
        forward = each * groups * video_flops.forward_flops(planned.model_cfg, planned.batch(bucket)) / bucket.rows
        copies = planned.ways["sequence"] * planned.ways["tensor"]
        encode = 0 if planned.recipe.keys.data.cached else each * groups * copies * encode_flops(planned, bucket)
        share = expected_mfu(planned, round(forward), each * groups, tokens(bucket), mfu)
        return cost.expected_seconds(forward, encode, planned.target, share, published.ENCODER_UTILISATION)

    longest = buckets[0]
    each = _largest(lambda n: peak(longest, n) <= room)
    if not each:
        return None
    limit = seconds(longest, each)
    batches = {longest: each}
    for bucket in buckets[1:]:
        batches[bucket] = _largest(lambda n, b=bucket: peak(b, n) <= room and seconds(b, n) <= limit)
    rows = each * groups
    forward = round(rows * video_flops.forward_flops(planned.model_cfg, planned.batch(longest)) / longest.rows)
    how = planned.ways, planned.target.chip.platform
    sent = cost.collectives_of(planned.model_cfg, parameters, rows, tokens(longest), *how)
    size = rows, tokens(longest), state
    bound = cost.bound(planned.model_cfg, forward, *size, planned.ways, sent, planned.target)
    return Candidate(
        planned.ways,
        planned.model_cfg.remat,
        _whole(planned.model_cfg),
        batches,
        limit,
        rows / limit,
        bound.mfu(forward, planned.target),
        peak(longest, each),
    )


def _whole(model_cfg: MMDiTConfig) -> int:
    """Blocks that keep everything although the policy is another."""
    blocks = model_cfg.depth + model_cfg.depth_single_blocks
    return 0 if model_cfg.remat == "none" else blocks - memory.recomputed_blocks(model_cfg)


def _largest(fits: Callable[[int], bool]) -> int:
    """The largest n with fits(n), by halving; 0 where even one does not fit."""
    low, high = 0, LARGEST + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def table(found: list[Candidate]) -> str:
    """The candidates that were found, in Markdown, then the buckets of the first."""
    if not found:
        return "nothing fits: give more devices, or devices with more memory"
    head = ("mesh", "remat", "clips of a group", "s a step", "clips / s", "MFU at most", "GB a device")
    rows = [
        (
            ", ".join(f"{axis} {size}" for axis, size in c.mesh.items() if size > 1) or "one device",
            c.remat + (f", {c.whole} single blocks not" if c.whole else ""),
            str(next(iter(c.batches.values()))),
            f"{c.seconds:.2f}",
            f"{c.clips_per_s:.3g}",
            f"{c.bound_mfu:.1%}",
            f"{c.peak_bytes / 1e9:.1f}",
        )
        for c in found
    ]
    buckets = [(f"{b.frames} x {b.width}x{b.height}", str(n)) for b, n in found[0].batches.items()]
    balanced = plan_page.markdown(("buckets of the first", "batch of a group"), buckets)
    return plan_page.markdown(head, rows) + "\n\n" + balanced
