"""Signs of life of a run's processes, in small files beside the checkpoints, so that the one that is gone is named.

In a collective all wait for the one that is missing, and none of them can say which it is. jax's own heartbeat ends all
of them some time later, also without a name.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from osjax import json_file
from osjax.errors import UserError

EVERY_S = 2.0  # between two signs of life
SILENT_S = 12.0  # without one a process is told of
SLOW = 0.5  # of its time that a process may wait for its own data, if process 0 waits for less than half of that


class Peers:
    """Watches the other processes from a thread of its own, as a context manager.

    folder: seen by all processes; None, as for one process alone, does nothing. index, count: this process, and how
    many there are.
    """

    def __init__(self, folder: Path | None, index: int, count: int):
        self._folder = folder if count > 1 else None
        self._index, self._count = index, count
        self._beat, self._reading, self._waited_s = 0, 0.0, 0.0
        self._seen: dict[int, tuple[Any, float]] = {}  # the last sign of each, and when it was new
        self._lives: set[int] = set()  # those that gave two signs since this process began
        self._silent: set[int] = set()
        self._before: dict[int, tuple[float, float]] = {}  # what `_compare` saw last
        self._began = time.monotonic()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peers", daemon=True)

    def __enter__(self) -> "Peers":
        if self._folder is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._folder is not None:
            with contextlib.suppress(OSError):
                self._path(self._index).unlink(missing_ok=True)

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """A block in which this process gets its own data: who waits here keeps the others waiting."""
        self._reading = time.monotonic()
        try:
            yield
        finally:
            self._waited_s, self._reading = self._waited_s + time.monotonic() - self._reading, 0.0

    def culprits(self) -> str:
        """Who keeps the others waiting, as far as is known; empty where it is not."""
        told = []
        for index, (sign, at) in list(self._seen.items()):
            if index in self._silent:
                told.append(f"{_name(index, sign)} gave no sign of life for {time.monotonic() - at:.0f} s")
            elif index != self._index and sign.get("reading", 0) > EVERY_S:
                told.append(f"{_name(index, sign)} waits for its data")
        return ", ".join(told[:4])

    def _path(self, index: int) -> Path:
        assert self._folder is not None
        return self._folder / f"process-{index}.json"

    def _watch(self) -> None:
        while True:
            with contextlib.suppress(OSError):  # a full disk, a folder that is lost for a while
                self._put()
            for index in range(self._count):
                if index != self._index:
                    self._look(index)
            if self._index == 0 and self._beat % int(SILENT_S / EVERY_S) == 0:
                self._compare()
            if self._end.wait(EVERY_S):
                return

    def _put(self) -> None:
        self._beat += 1
        reading = time.monotonic() - self._reading if self._reading else 0.0
        sign = {"beat": self._beat, "host": socket.gethostname(), "pid": os.getpid()}
        sign |= {"reading": reading, "waited_s": self._waited_s + reading}
        self._seen[self._index] = sign, time.monotonic()
        path = self._path(self._index)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        partial.write_text(json.dumps(sign))
        partial.replace(path)

    def _look(self, index: int) -> None:
        try:
            sign = json_file.read(self._path(index), "", ("beat", "host", "pid", "waited_s"))
        except UserError:
            return
        now, (before, at) = time.monotonic(), self._seen.get(index, (None, 0.0))
        if sign != before:
            self._lives |= {index} if before is not None else set()
            self._silent.discard(index)
            self._seen[index] = sign, now
        elif index in self._lives - self._silent and now - at > SILENT_S:
            self._silent.add(index)
            _say(f"{_name(index, sign)} gives no sign of life for {now - at:.0f} s: it is stopped, gone or cut off")

    def _compare(self) -> None:
        """Name the processes that wait for their data most of the time, while this one does not."""
        shares = {}
        for index, (sign, at) in self._seen.items():
            waited, before = self._before.get(index, (0.0, self._began))
            shares[index] = (sign["waited_s"] - waited) / max(at - before, EVERY_S)
            self._before[index] = sign["waited_s"], at
        for index, share in shares.items():
            if share > SLOW and shares.get(0, 0.0) < share / 2:
                sign, least = self._seen[index][0], min(shares.values())
                _say(f"{_name(index, sign)} waits for its data {share:.0%} of its time, others {least:.0%}: it is slow")


def _name(index: int, sign: dict[str, Any]) -> str:
    return f"process {index} on {sign['host']} (pid {sign['pid']})"


def _say(line: str) -> None:
    print(f"osjax: {line}", file=sys.stderr, flush=True)
