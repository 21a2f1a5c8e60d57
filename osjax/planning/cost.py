"""Time, utilisation and money of a train step: bounds from what the hardware can do, estimates from a utilisation.

Utilisation (MFU) counts three forward passes of the model's matrix products for a step, whatever is computed again, as
PaLM (Chowdhery et al. 2022, appendix B) defines it. The autoencoder that encodes a batch counts by itself: its
convolutions reach far less of the peak than the transformer's products.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from osjax.models.mmdit.config import MMDiTConfig
from osjax.planning import memory
from osjax.planning.hlo import Collective
from osjax.planning.targets import Target

# bfloat16 tensors (tokens, width) that one block's forward pass reads or writes where products are not fused with
# what follows them: norms, modulation, rotary positions and activations once each, products' inputs and outputs.
PASSES = 40


@dataclass(frozen=True)
class Bound:
    """Seconds of one step if only compute, memory or links took time."""

    compute: float
    memory: float
    links: float

    @property
    def seconds(self) -> float:
        """Seconds of a step whose compute, memory traffic and sending overlap wholly: the longest of the three."""
        return max(self.compute, self.memory, self.links)

    @property
    def by(self) -> str:
        return max(("compute", "memory", "links"), key=lambda name: getattr(self, name))

    def mfu(self, forward_flops: int, target: Target) -> float:
        """The utilisation, 0 to 1, that no run can exceed. forward_flops: as in `bound`; target: the devices."""
        return 3 * forward_flops / (self.seconds * target.devices * target.chip.tflops * 1e12)


def executed_flops(model_cfg: MMDiTConfig, forward_flops: int, rows: int, tokens: int) -> float:
    """FLOPs of a step of all devices: three forward passes, and what rematerialisation computes again.

    model_cfg: of the video model. forward_flops: of one forward pass over the whole batch. rows: clips of that batch.
    tokens: of one row, text included; attention's part, which some policies keep, grows with their square.
    """
    blocks = model_cfg.depth + model_cfg.depth_single_blocks
    again = forward_flops * memory.recomputed_blocks(model_cfg) / blocks
    if model_cfg.remat in memory.ATTENTION_ONCE:
        attention = 4 * rows * tokens**2 * model_cfg.hidden_size * memory.recomputed_blocks(model_cfg)
        again -= attention
    return 3 * forward_flops + again


def bound(
    model_cfg: MMDiTConfig,
    forward_flops: int,
    rows: int,
    tokens: int,
    state_bytes: int,
    ways: dict[str, int],
    collectives: Sequence[Collective],
    target: Target,
) -> Bound:
    """The least seconds of one step by compute, by memory traffic and by links, each as if the others took no time.

    model_cfg: of the video model. forward_flops: of one forward pass over the whole batch. rows: clips of that batch.
    tokens: of one row, text included. state_bytes: of one device. ways: sizes of the mesh axes. collectives: what a
    step sends, from a compiled program or `collectives_of`. target: the devices.
    """
    executed = executed_flops(model_cfg, forward_flops, rows, tokens)
    runs = executed / forward_flops
    here = rows * tokens / target.devices
    blocks = model_cfg.depth + model_cfg.depth_single_blocks
    activations = runs * blocks * PASSES * 2 * here * model_cfg.hidden_size
    return Bound(
        executed / (target.devices * target.chip.tflops * 1e12),
        (activations + 3 * state_bytes) / (target.chip.hbm_gbps * 1e9),  # state is read, written, and read as weights
        sending(collectives, ways, target),
    )


def sending(collectives: Sequence[Collective], ways: dict[str, int], target: Target) -> float:
    """Seconds that collectives take one after the other, at the published speed of the links.

    collectives: of one step. ways: sizes of the mesh axes. target: the devices.
    """
    seconds = 0.0
    for collective in collectives:
        group = 1
        for axis in collective.axes:
            group *= ways[axis]
        seconds += collective.bytes / target.sends(group * _inner(ways, collective.axes))
    return seconds


def _inner(ways: dict[str, int], axes: Sequence[str]) -> int:
    """Devices between neighbours along these axes: those of the axes that vary faster."""
    names = list(ways)
    between = 1
    for name in names[names.index(axes[-1]) + 1 :] if axes else ():
        between *= ways[name]
    return between


def collectives_of(
    model_cfg: MMDiTConfig, parameters: int, rows: int, tokens: int, ways: dict[str, int], platform: str
) -> list[Collective]:
    """What a step sends, by arithmetic: weights gathered for each pass, gradients scattered, tokens exchanged.

    model_cfg: of the video model. parameters: their number. rows: of the whole batch. tokens: of one row, text
    included. ways: sizes of the mesh axes. platform: tpu or gpu, whose compilers differ: a TPU's gathers once for a
    block's recomputed and its backward pass. Kernels of modulations stay where they are; rows of their input and output
    move.
    """
    sent = []
    again = memory.recomputed_blocks(model_cfg) / (model_cfg.depth + model_cfg.depth_single_blocks)
    axes = tuple(name for name in ("fsdp", "sequence") if ways[name] > 1)
    shards = ways["fsdp"] * ways["sequence"]
    width = _modulation_width(model_cfg)
    moved = parameters - model_cfg.hidden_size * width
    if shards > 1:
        share = (shards - 1) / shards / ways["tensor"]
        passes = 2 if platform == "tpu" else 2 + again
        sent.append(Collective("all-gather", axes, 0, round(2 * moved * share * passes)))
        reduced = 4 if model_cfg.grad_reduce == "float32" else 2
        modulated = 4 * rows / ways["data"] * width * (1 + again)  # the devices' parts of the sums
        sent.append(Collective("reduce-scatter", axes, 0, round((reduced * moved + modulated) * share)))
        everywhere = tuple(name for name in ("data", *axes) if ways[name] > 1)
        sent.append(Collective("all-gather", everywhere, 0, round(2 * rows * width * share)))  # for their gradients
    if ways["data"] > 1:
        share = 2 * (ways["data"] - 1) / ways["data"]
        sent.append(Collective("all-reduce", ("data",), 0, round(4 * moved / shards / ways["tensor"] * share)))
    here = 2 * rows / (ways["data"] * ways["fsdp"]) * tokens * model_cfg.hidden_size
    blocks = model_cfg.depth + model_cfg.depth_single_blocks
    if (n := ways["sequence"]) > 1:
        # Ulysses sends q, k, v and the result in each pass; a ring k and v of all others, backward their gradients too.
        if model_cfg.attention == "ulysses":
            kind, tensors = "all-to-all", (2 + again) * 4 / n * (n - 1) / n
        else:
            kind, tensors = "collective-permute", (3 + again) * 2 * (n - 1) / n
        sent.append(Collective(kind, ("sequence",), 0, round(blocks * here * tensors)))
    if (n := ways["tensor"]) > 1:
        of_pass = 2 * 2 * (n - 1) / n * here / ways["sequence"]  # the sums after attention and after the feed-forward
        sent.append(Collective("all-reduce", ("tensor",), 0, round(blocks * (2 + again) * of_pass)))
    return sent


def _modulation_width(model_cfg: MMDiTConfig) -> int:
    """Values that the modulations of all blocks and of the last layer give for one clip."""
    return model_cfg.hidden_size * (12 * model_cfg.depth + 3 * model_cfg.depth_single_blocks + 2)


def expected_seconds(
    forward_flops: int, encode_flops: float, target: Target, mfu: float, encoder_utilisation: float
) -> float:
    """Seconds of a step at given utilisations: the model's three passes, then the encoding of the batch.

    forward_flops: of one forward pass over the whole batch. encode_flops: of all devices together for one batch.
    target: the devices. mfu, encoder_utilisation: shares of their peak, 0 to 1, that each of the two reaches.
    """
    peak = target.devices * target.chip.tflops * 1e12
    return 3 * forward_flops / (mfu * peak) + encode_flops / (encoder_utilisation * peak)
