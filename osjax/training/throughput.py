"""What a step works on, for tokens per second and model FLOPs utilisation (MFU)."""

from collections.abc import Callable
from typing import Any

from osjax.types import Tree


class Throughput:
    """Rates of a run from the work of its batches, which is asked for once for every shape.

    tokens: that the model reads in a step over all devices. flops: of the forward and backward pass; asked for only
    where a peak is known, because it traces the model again. peak_flops: of all devices a second, if known.
    """

    def __init__(
        self, tokens: Callable[[Any], int], flops: Callable[[Any], int], peak_flops: float | None = None
    ) -> None:
        self._tokens, self._flops, self._peak = tokens, flops, peak_flops
        self._known: dict[str, dict[str, float]] = {}

    def look_at(self, shape: str, batch: Tree) -> None:
        """Know batches of this shape, such as `batch`, from now on."""
        if shape in self._known:
            return
        self._known[shape] = {"tokens_per_s": self._tokens(batch)}
        if self._peak:
            self._known[shape]["mfu"] = self._flops(batch) / self._peak

    def rates(self, shape: str, steps_per_s: float) -> dict[str, float]:
        """tokens_per_s, and mfu where the peak is known, at `steps_per_s` with batches of a shape looked at."""
        return {name: of_a_step * steps_per_s for name, of_a_step in self._known[shape].items()}
