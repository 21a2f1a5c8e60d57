"""Ends a process whose steps have stopped coming, with the stacks of all threads, so that a supervisor can restart it.

A hung collective or loader waits for ever and costs as much as training. The exit status is EX_TEMPFAIL (75), which
`launch/supervise.sh` takes for "try again".
"""

import faulthandler
import os
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

EXIT_STATUS = os.EX_TEMPFAIL
BEATS_BEFORE = 3  # the first intervals hold compilation
REMEMBERED = 50  # intervals that the median is taken over


class Watchdog:
    """`beat()` once a step; as a context manager it watches from a thread of its own.

    factor: how many median steps without a beat mean a hang; 0 never does. least_s: seconds that are always allowed,
    for saving, evaluating and compiling another shape. folder: where `hang-PROCESS.txt` goes.
    """

    def __init__(
        self,
        factor: float,
        least_s: float,
        folder: Path,
        process: int = 0,
        end: Callable[[int], None] = os._exit,  # not sys.exit: the main thread is the one that hangs
    ):
        self.factor, self.least_s, self.end = factor, least_s, end
        self.path = Path(folder) / f"hang-{process}.txt"
        self._intervals: deque[float] = deque(maxlen=REMEMBERED)
        self._last: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        if self.factor:
            self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def beat(self) -> None:
        now = time.monotonic()
        if self._last is not None:
            self._intervals.append(now - self._last)
        self._last = now

    def allowed_s(self) -> float | None:
        """Seconds without a beat that are still in order; None while too few steps are known."""
        if len(self._intervals) < BEATS_BEFORE:
            return None
        return max(self.least_s, self.factor * statistics.median(self._intervals))

    def _watch(self) -> None:
        while not self._stop.wait(min(1.0, self.least_s / 4)):
            allowed = self.allowed_s()
            if allowed is not None and time.monotonic() - self._last > allowed:
                self._report(time.monotonic() - self._last)
                self.end(EXIT_STATUS)
                return

    def _report(self, waited: float) -> None:
        line = f"no step for {waited:.0f} s: stopping for a restart; the stacks of all threads are in {self.path}"
        print(f"osjax: {line}", file=sys.stderr, flush=True)
        try:
            with self.path.open("w") as file:
                file.write(line + "\n")
                faulthandler.dump_traceback(file, all_threads=True)
        except OSError:  # a full disk must not keep a hung process alive
            faulthandler.dump_traceback(sys.stderr, all_threads=True)
