"""What a step works on, for tokens per second and model FLOPs utilisation (MFU)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Work:
    """Of one step over all devices. tokens: that the model reads. flops: of the forward and backward pass."""

    tokens: int
    flops: int


class Throughput:
    """measure: the work of a batch, asked once for every shape. peak_flops: of all devices a second, if known."""

    def __init__(self, measure: Callable[[Any], Work], peak_flops: float | None = None):
        self._measure, self._peak = measure, peak_flops
        self._known: dict[str, Work] = {}

    def look_at(self, shape: str, batch: Any) -> None:
        """Know batches of this shape from now on."""
        if shape not in self._known:
            self._known[shape] = self._measure(batch)

    def rates(self, shape: str, steps_per_s: float) -> dict[str, float]:
        """tokens_per_s, and mfu where the peak is known."""
        work = self._known[shape]
        found = {"tokens_per_s": work.tokens * steps_per_s}
        return found | ({"mfu": work.flops * steps_per_s / self._peak} if self._peak else {})
