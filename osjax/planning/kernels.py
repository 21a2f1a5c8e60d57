"""The time of a train step kernel by kernel: products, attention, what is neither, and sending that nothing hides.

Every rate is named, so that what a device later shows can be laid beside it line by line. They are assumptions: none
was measured by this project on an accelerator.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from osjax.models.mmdit.config import MMDiTConfig
from osjax.planning import cost, memory
from osjax.planning.hlo import Collective
from osjax.planning.targets import Target

# A softmax attention multiplies twice forward (scores, values) and five times backward (scores again, and four).
BACKWARD = 2.5
# bfloat16 tensors (tokens, width) that one block's forward pass moves outside of products and attention: norm and
# modulation, the rotation of queries and keys, GELU, gated sums.
MOVED = 24
WAITING = ("all-to-all", "collective-permute")  # sent between two kernels that need it; others go on beside the blocks


@dataclass(frozen=True)
class Rates:
    """What kernels reach on a chip: TFLOP/s of products and of attention forward and backward, GB/s of its memory."""

    products: float
    attention: float
    attention_backward: float
    memory: float

    @property
    def says(self) -> str:
        """The rates in words."""
        return (
            f"products at {self.products:.0f} TFLOP/s, attention at {self.attention:.0f}, its backward pass at "
            f"{self.attention_backward:.0f}, memory at {self.memory:.0f} GB/s; all assumed"
        )


def rates(target: Target) -> Rates:
    """The rates that are assumed of a target's chip, from its published peaks.

    GPUs: 76 % in products and 65 % of that in cuDNN's attention both ways, which is what is told of large bfloat16
    products on an H200. TPUs: 90 % in products, 60 % and 50 % of the peak in splash attention. Memory: 90 %.
    """
    peak = target.chip.tflops
    shares = (0.76, 0.52, 0.52) if target.chip.platform == "cuda" else (0.9, 0.6, 0.5)
    return Rates(*(peak * share for share in shares), 0.9 * target.chip.hbm_gbps)


@dataclass(frozen=True)
class Expected:
    """Seconds of one step by what takes them. hidden: sending beside the blocks; waiting: between their kernels."""

    products: float
    attention: float
    elementwise: float
    optimizer: float
    waiting: float
    hidden: float

    @property
    def seconds(self) -> float:
        """Seconds of the step: one kernel after the other, and of the hidden sending what lasts longer than they do."""
        return max(self.products + self.attention + self.elementwise, self.hidden) + self.waiting + self.optimizer

    def mfu(self, forward_flops: int, target: Target) -> float:
        """The utilisation, 0 to 1. forward_flops: of one forward pass over the whole batch. target: the devices."""
        return 3 * forward_flops / (self.seconds * target.devices * target.chip.tflops * 1e12)


def expected(
    model_cfg: MMDiTConfig,
    forward_flops: int,
    rows: int,
    tokens: int,
    state_bytes: int,
    ways: dict[str, int],
    collectives: Sequence[Collective],
    target: Target,
) -> Expected:
    """The seconds of one step, kernel by kernel, at the rates that are assumed of the target's chip.

    model_cfg, forward_flops, rows, tokens, state_bytes, ways, collectives, target: see `cost.bound`.
    """
    at, blocks = rates(target), model_cfg.depth + model_cfg.depth_single_blocks
    again = memory.recomputed_blocks(model_cfg) / blocks
    attended = 4 * rows * tokens**2 * model_cfg.hidden_size * blocks  # one forward pass
    twice = 0.0 if model_cfg.remat in memory.ATTENTION_ONCE else again
    here = rows * tokens / target.devices
    moved = (3 + again) * blocks * MOVED * 2 * here * model_cfg.hidden_size
    waiting, hidden = ([c for c in collectives if (c.kind in WAITING) == wanted] for wanted in (True, False))
    return Expected(
        products=(3 + again) * (forward_flops - attended) / (target.devices * at.products * 1e12),
        attention=attended / (target.devices * 1e12) * ((1 + twice) / at.attention + BACKWARD / at.attention_backward),
        elementwise=moved / (at.memory * 1e9),
        optimizer=3 * state_bytes / (at.memory * 1e9),
        waiting=cost.sending(waiting, ways, target),
        hidden=cost.sending(hidden, ways, target),
    )
