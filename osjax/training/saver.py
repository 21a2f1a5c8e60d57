"""Saves that may fail: training goes on, since the checkpoint before is still there, until too many failed in a row."""

import sys
from collections.abc import Callable

from tqdm import tqdm

from osjax.atomic import is_full_disk, limit_of
from osjax.errors import UserError
from osjax.training.checkpoint import Checkpoints
from osjax.training.local_tier import LocalTier
from osjax.training.loop_config import LoopConfig
from osjax.training.state import TrainState
from osjax.types import Json


class Saver:
    """Saves states with their config and the data iterator's place, and counts the saves in a row that fail."""

    def __init__(
        self,
        cfg: LoopConfig,
        checkpoints: Checkpoints,
        data_state: Callable[[], Json] | None,
        config: Json,
        local: LocalTier | None = None,
    ):
        self.cfg, self.checkpoints, self.data_state, self.config = cfg, checkpoints, data_state, config
        self._local = local
        self.failed = 0
        self.under_way = False

    def is_due(self, step: int) -> bool:
        """Whether a state of this step is to be saved, wherever it be."""
        return _due(step, self.cfg.save_every) or (self._local is not None and _due(step, self.cfg.local_every))

    def save(self, step: int, state: TrainState, last: bool = False) -> None:
        """Start to save the state of a step; a save that fails is told of.

        last: nothing follows, so it goes to the store. UserError where `max_failed_saves` of them in a row did.
        """
        data = self.data_state and self.data_state()
        if self._local is not None and not last and not _due(step, self.cfg.save_every):
            self._local.save(step, state, data, self.config)
            return
        try:
            self.checkpoints.save(step, state, data, self.config)
        except UserError:
            raise
        except Exception as error:  # what a file system can raise here has no common class
            self.under_way = False
            self._count(step, error)
            return
        if self.under_way:  # then that one has arrived: the call would have raised its error
            self.failed = 0
        self.under_way = True

    def finish(self, step: int, state: TrainState) -> None:
        """Wait for the last save, which was of this step and state, and try it once more if it failed.

        Nothing can go on without it here: UserError where it fails again.
        """
        try:
            self.checkpoints.wait()
        except Exception as error:
            self._count(step, error)
        if self.checkpoints.latest_step() == step:
            return
        try:
            self.checkpoints.save(step, state, self.data_state and self.data_state(), self.config)
            self.checkpoints.wait()
        except Exception as error:
            self.checkpoints.remove_half_made()
            raise UserError(
                f"{self.cfg.stage}: {self._words(step, error)}: {_mend(error)} and run the command again"
            ) from error

    def _count(self, step: int, error: Exception) -> None:
        self.failed += 1
        self.checkpoints.remove_half_made()
        if self.failed >= self.cfg.max_failed_saves:
            raise UserError(
                f"{self.cfg.stage}: {self.failed} saves in a row failed; {self._words(step, error)}: "
                f"{_mend(error)}, then run the same command to go on from the last checkpoint"
            ) from error
        tqdm.write(f"{self.cfg.stage}: {self._words(step, error)}; training goes on", file=sys.stderr)

    def _words(self, step: int, error: Exception) -> str:
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        if is_full_disk(error):
            first = f"no space is left for {self.checkpoints.folder}"
        elif limit := limit_of(error):
            first = limit[0]
        return f"the checkpoint of step {step} could not be written ({first})"


def _mend(error: Exception) -> str:
    limit = limit_of(error)
    return limit[1] if limit else "make room or mend the folder"


def _due(step: int, every: int) -> bool:
    return bool(every) and step % every == 0
