"""Work on files of unknown origin in processes of their own: one that hangs, crashes or eats memory costs one row."""

import errno
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import ModuleType

from osjax.curation.tables import Row
from osjax.data.workers import Lost, Workers
from osjax.errors import UserError

log = logging.getLogger(__name__)
LONGEST = 6 * 3600.0  # seconds that any clip may take, whatever its header says of its length
# Errors of the machine rather than of the clip: they stop the step, which goes on where it stood once they are mended.
MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EIO}


@dataclass(frozen=True)
class Limits:
    """What one clip may take, and how many are worked on at once.

    seconds: of work on any clip. per_second: seconds of work added for each second of its video. memory_gb: address
    space of a worker, 0 for no limit. workers: processes, 0 for one per core.
    """

    seconds: float = 60.0
    per_second: float = 20.0
    memory_gb: float = 16.0
    workers: int = 0

    def __post_init__(self):
        if not self.seconds > 0:
            raise UserError(f"seconds is {self.seconds}: give more than 0")
        for name in ("per_second", "memory_gb", "workers"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name} is {getattr(self, name)}: give 0 or more")

    def deadline(self, row: Row) -> float:
        """Seconds of work that this row's clip may take."""
        length = row.get("duration") or (row.get("num_frames") or 0) / (row.get("fps") or 24)
        return min(self.seconds + self.per_second * max(0.0, float(length)), LONGEST)


class Pool:
    """Worker processes under `limits`; use as a context. tells: names in the log every clip that is dropped."""

    def __init__(self, limits: Limits, tells: bool = True):
        self.limits, self.tells = limits, tells

    def __enter__(self) -> "Pool":
        count = self.limits.workers or len(os.sched_getaffinity(0))
        start = partial(os.nice, 5)  # the loop that feeds the workers stays responsive
        self._workers = Workers(count, start, self.limits.memory_gb)
        self._threads = ThreadPoolExecutor(count)  # one for each process, which waits for it
        return self

    def __exit__(self, *error) -> None:
        self._workers.close()
        self._threads.shutdown(cancel_futures=True)

    def each(self, function: Callable[[Row], list[Row]], rows: Sequence[Row]) -> list[Row]:
        """The rows that `function` makes of each row, in order.

        A row whose clip is at fault comes back with a `reason`: the UserError's line, or "quarantined: ..." when the
        clip ran past its deadline, took its process down or raised anything else. Rows that have a reason pass. A clip
        that is late while the machine has more to do than processors gets a second try, with twice the time.
        """
        return [out for made in self._threads.map(partial(self._one, function), rows) for out in made]

    def _one(self, function: Callable[[Row], list[Row]], row: Row) -> list[Row]:
        if row.get("reason"):
            return [row]
        made, reason, fatal = self._tried(function, row, self.limits.deadline(row), again=True)
        if fatal:
            raise UserError(fatal)
        if reason:
            if self.tells:
                log.warning("dropped: %s", reason if str(row["path"]) in reason else f"{row['path']}: {reason}")
            return [{**row, "reason": reason}]
        return made

    def _tried(
        self, function: Callable[[Row], list[Row]], row: Row, seconds: float, again: bool
    ) -> tuple[list[Row], str | None, str | None]:
        """What `_guarded` gives within so many seconds. again: whether to try once more on a busy machine."""
        try:
            return self._workers.call(_guarded, function, row, timeout_s=seconds)
        except Lost as error:
            if error.late and again and machine_is_busy():
                log.info("%s is late on a busy machine: tried again", row["path"])
                return self._tried(function, row, 2 * seconds, again=False)
            return [], f"quarantined: {error}", None


def machine_is_busy() -> bool:
    """Whether more processes want to run than there are processors for them."""
    return os.getloadavg()[0] > len(os.sched_getaffinity(0)) + 0.5


def _guarded(niceness: int, function: Callable[[Row], list[Row]], row: Row) -> tuple[list[Row], str | None, str | None]:
    """(rows, the clip's fault, the machine's fault), of which one counts."""
    try:
        return function(row), None, None
    except UserError as error:
        return [], str(error), None
    except OSError as error:
        if error.errno in MACHINE and os.access(row["path"], os.R_OK):
            return [], None, f"{row['path']}: {error}: mend it and run the same command again"
        return [], f"quarantined: {type(error).__name__}: {error}", None
    except Exception as error:  # native libraries raise all sorts of things on damaged files
        return [], f"quarantined: {type(error).__name__}: {error}", None


def need(module: str, extra: str) -> ModuleType:
    """The library `module` of an optional `extra` of osjax; UserError that names the extra when it is not there."""
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as error:
        raise UserError(
            f"{module} is not installed or does not load ({error}): pip install 'osjax[{extra}]'"
        ) from error
