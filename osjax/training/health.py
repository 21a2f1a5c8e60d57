"""Is the run still healthy? Counts non-finite updates in a row and finds loss spikes."""

import math
import statistics
from collections import deque
from dataclasses import dataclass

from osjax.errors import UserError


@dataclass(frozen=True)
class HealthConfig:
    """When to go back to the last good checkpoint.

    max_skipped: non-finite updates in a row. spike_factor: a loss above this many times the median of the last
    `spike_window` losses is a spike (0: never); `spike_steps` spikes in a row count. max_rollbacks: times in a run
    after which it stops instead. verify_every: steps after which one is done twice and its bits compared (0: never),
    which takes a second copy of the state; the run stops where they differ.
    """

    max_skipped: int = 10
    spike_factor: float = 0.0
    spike_window: int = 100
    spike_steps: int = 5
    max_rollbacks: int = 3
    verify_every: int = 0

    def __post_init__(self):
        least = {"max_skipped": 1, "spike_factor": 0, "spike_window": 1, "spike_steps": 1}
        least |= {"max_rollbacks": 0, "verify_every": 0}
        for name, smallest in least.items():
            if not smallest <= getattr(self, name) < math.inf:
                raise UserError(f"{name} is {getattr(self, name)}: give {smallest} or more")


@dataclass(frozen=True)
class Illness:
    """A reason to go back. reason: in words, for the user. since: the first step that was bad."""

    reason: str
    since: int


class Health:
    """A watch over a run that is told every step's loss and says when it is time to go back.

    cfg: its limits. skipped: the state's count of updates left out so far.
    """

    def __init__(self, cfg: HealthConfig, skipped: int):
        self.cfg = cfg
        self.restart(skipped)

    def restart(self, skipped: int) -> None:
        """Forget the past; skipped: the state's count of updates left out so far."""
        self.skipped, self.skipped_in_a_row, self.spikes_in_a_row = skipped, 0, 0
        self.losses: deque[float] = deque(maxlen=self.cfg.spike_window)

    def observe(self, step: int, loss: float, skipped: int) -> Illness | None:
        """Take the loss of a step; what is wrong, or None. skipped: the state's count after this step."""
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if skipped > self.skipped else 0
        self.skipped = skipped
        self.spikes_in_a_row = self.spikes_in_a_row + 1 if self._is_spike(loss) else 0
        if not self.spikes_in_a_row and math.isfinite(loss):
            self.losses.append(loss)
        if self.skipped_in_a_row >= self.cfg.max_skipped:
            count = self.skipped_in_a_row
            return Illness(f"{count} updates in a row were not finite, the last at step {step}", step - count + 1)
        if self.cfg.spike_factor and self.spikes_in_a_row >= self.cfg.spike_steps:
            usual = statistics.median(self.losses)
            reason = f"the loss stayed above {self.cfg.spike_factor:g} times its median {usual:.4g} up to step {step}"
            return Illness(reason, step - self.spikes_in_a_row + 1)
        return None

    def _is_spike(self, loss: float) -> bool:
        full = len(self.losses) >= self.cfg.spike_window
        return bool(self.cfg.spike_factor) and full and loss > self.cfg.spike_factor * statistics.median(self.losses)
