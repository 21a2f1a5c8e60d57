"""Batches read ahead by processes of their own, which may die or hang without taking the training run along.

Each batch is a pure function of its step, so a batch whose process died is read again by a new one, and comes out the
same. Processes suit decoding: they share no interpreter lock, and a decoder that crashes ends only one of them.
"""

import logging
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import TimeoutError as Late
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from osjax.errors import UserError

log = logging.getLogger(__name__)
MAX_DEATHS = 3  # of workers, in a row, for one batch

_read: Callable[[int], Any] | None = None  # of this worker


def _start(read: Callable[[int], Any]) -> None:
    global _read
    _read = read


def _call(step: int) -> Any:
    return _read(step)


@dataclass(frozen=True)
class Ahead:
    """Iterable over read(0), read(1), ... without end. read: picklable; sent to every worker once.

    workers: processes. ahead: batches that are read before they are asked for. timeout_s: for one batch, from when it
    is asked for; then a UserError says which step hung.
    """

    read: Callable[[int], Any]
    workers: int
    ahead: int
    timeout_s: float = 600.0

    def __iter__(self) -> "AheadIterator":
        return AheadIterator(self)


class AheadIterator(Iterator):
    def __init__(self, of: Ahead):
        self._of, self._next = of, 0
        self._pool: ProcessPoolExecutor | None = None
        self._waiting: deque[Future] = deque()

    def __next__(self) -> Any:
        for death in range(MAX_DEATHS):
            try:
                self._fill()
                batch = self._waiting[0].result(self._of.timeout_s)
            except BrokenProcessPool:
                log.warning("a loader process died at step %d and is started again (%d)", self._next, death + 1)
                self._drop()
                continue
            except Late as error:
                self._drop()
                raise UserError(
                    f"no batch for step {self._next} after {self._of.timeout_s:g} s: a file or its disk hangs; "
                    "probe the data, or raise the loader's timeout"
                ) from error
            self._waiting.popleft()
            self._next += 1
            return batch
        raise UserError(
            f"loader processes died {MAX_DEATHS} times at step {self._next}: a clip of it crashes the decoder, or "
            "memory runs out; probe the data, or use fewer workers"
        )

    def _fill(self) -> None:
        if self._pool is None:
            # Not forked: a copy of a process with JAX's threads may never wake up.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._of.workers, context, _start, (self._of.read,))
        while len(self._waiting) <= self._of.ahead:
            self._waiting.append(self._pool.submit(_call, self._next + len(self._waiting)))

    def _drop(self) -> None:
        """End all workers, also those that hang."""
        self._waiting.clear()
        if self._pool is None:
            return
        processes = list((self._pool._processes or {}).values())  # before 3.14 an executor has no way to kill them
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()
        self._pool = None

    def get_state(self) -> dict[str, int]:
        """The same as a Grain iterator's, so that either goes on where the other stopped."""
        return {"next_index": self._next}

    def set_state(self, state: dict[str, int]) -> None:
        self._drop()
        self._next = int(state["next_index"])

    def close(self) -> None:
        self._drop()

    def __del__(self):
        self._drop()
