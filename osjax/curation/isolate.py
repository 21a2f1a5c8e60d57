"""Work on files of unknown origin in processes of their own: one that hangs, crashes or eats memory costs one row.

Source of the pool: Pebble, whose workers are killed at a task's deadline and replaced when they die.
"""

import errno
import logging
import os
import resource
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as DeadlineError
from dataclasses import dataclass
from multiprocessing import get_context

from osjax.curation.tables import Row
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

    def deadline(self, row: Row) -> float:
        """Seconds of work that this row's clip may take."""
        length = row.get("duration") or (row.get("num_frames") or 0) / (row.get("fps") or 24)
        return min(self.seconds + self.per_second * max(0.0, float(length)), LONGEST)


class Pool:
    """Worker processes under `limits`; use as a context."""

    def __init__(self, limits: Limits):
        self.limits = limits

    def __enter__(self) -> "Pool":
        pebble = need("pebble", "data")
        self._pool = pebble.ProcessPool(
            max_workers=self.limits.workers or len(os.sched_getaffinity(0)),
            initializer=_limit_memory,
            initargs=[self.limits.memory_gb],
            context=get_context("forkserver"),  # a fork of this process would copy its threads' locks
        )
        return self

    def __exit__(self, *error) -> None:
        self._pool.stop()
        self._pool.join()

    def each(self, function: Callable[[Row], list[Row]], rows: Sequence[Row]) -> list[Row]:
        """The rows that `function` makes of each row, in order.

        A row whose clip is at fault comes back with a `reason`: the UserError's line, or "quarantined: ..." when the
        clip ran past its deadline, took its process down or raised anything else. Rows that have a reason pass.
        """
        jobs = [
            None
            if row.get("reason")
            else self._pool.schedule(_guarded, args=[function, row], timeout=self.limits.deadline(row))
            for row in rows
        ]
        return [out for row, job in zip(rows, jobs, strict=True) for out in ([row] if job is None else _wait(row, job))]


def _wait(row: Row, job) -> list[Row]:
    from pebble import ProcessExpired

    try:
        made, reason, fatal = job.result()
    except DeadlineError:
        made, reason, fatal = [], "quarantined: ran past its deadline", None
    except ProcessExpired as error:
        made, reason, fatal = [], f"quarantined: took its process down (exit code {error.exitcode})", None
    if fatal:
        raise UserError(fatal)
    if reason:
        log.warning("dropped: %s", reason if str(row["path"]) in reason else f"{row['path']}: {reason}")
        return [{**row, "reason": reason}]
    return made


def _guarded(function: Callable[[Row], list[Row]], row: Row) -> tuple[list[Row], str | None, str | None]:
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


def _limit_memory(gigabytes: float) -> None:
    os.nice(5)  # the loop that feeds the workers stays responsive
    if gigabytes:
        size = int(gigabytes * 1024**3)
        resource.setrlimit(resource.RLIMIT_AS, (size, resource.getrlimit(resource.RLIMIT_AS)[1]))


def need(module: str, extra: str):
    """Import a library of an optional extra; UserError that names the extra when it is not there."""
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as error:
        raise UserError(
            f"{module} is not installed or does not load ({error}): pip install 'osjax[{extra}]'"
        ) from error
