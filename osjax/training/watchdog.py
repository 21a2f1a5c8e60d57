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

import jax

EXIT_STATUS = os.EX_TEMPFAIL
WARN_FACTOR, WARN_LEAST_S = 10.0, 10.0  # median steps, seconds: with several processes a wait this long is reported
BEATS_BEFORE = 3  # the first intervals hold compilation
REMEMBERED = 50  # intervals that the median is taken over


class Watchdog:
    """`beat()` once a step; as a context manager it watches from a thread of its own.

    factor: how many median steps without a beat mean a hang; 0 never does. least_s: seconds that are always allowed,
    for saving, evaluating and compiling another shape. folder: where `hang-PROCESS.txt` goes. processes: of the run;
    where there are several, a long wait or a step that fails is reported, because it may be for one that is gone.
    before_end: is called before a process that hangs is ended. culprits: says who it may be, empty where nobody knows.
    """

    def __init__(
        self,
        factor: float,
        least_s: float,
        folder: Path,
        process: int = 0,
        end: Callable[[int], None] = os._exit,  # not sys.exit: the main thread is the one that hangs
        processes: int = 1,
        before_end: Callable[[], None] = lambda: None,
        culprits: Callable[[], str] = str,
    ):
        self.factor, self.least_s, self.end, self.processes = factor, least_s, end, processes
        self.before_end, self.culprits = before_end, culprits
        self.path = Path(folder) / f"hang-{process}.txt"
        self._intervals: deque[float] = deque(maxlen=REMEMBERED)
        self._last: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        if self.factor or self.processes > 1:
            self._thread.start()
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: object) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        if self.processes > 1 and isinstance(error, jax.errors.JaxRuntimeError):
            reason = str(error).splitlines()[0][:200]
            self._say(f"a step failed ({reason}): {self._whose()}")

    def beat(self) -> None:
        """A step is done."""
        now = time.monotonic()
        if self._last is not None:
            self._intervals.append(now - self._last)
        self._last = now

    def allowed_s(self) -> float | None:
        """Seconds without a beat that are still in order; None while too few steps are known."""
        return self._of_median(self.factor, self.least_s)

    def _of_median(self, factor: float, least_s: float) -> float | None:
        if len(self._intervals) < BEATS_BEFORE:
            return None
        return max(least_s, factor * statistics.median(self._intervals))

    def _watch(self) -> None:
        warned_at = None  # the beat after which it was said
        while not self._stop.wait(min(1.0, self.least_s / 4)):
            last, allowed, patience = self._last, self.allowed_s(), self._of_median(WARN_FACTOR, WARN_LEAST_S)
            if allowed is None:
                continue
            waited = time.monotonic() - last
            if self.processes > 1 and waited > patience and warned_at != last:
                warned_at = last
                self._say(f"no step for {waited:.0f} s: {self._whose()}")
            if self.factor and waited > allowed:
                self._report(waited)
                self.before_end()
                self.end(EXIT_STATUS)
                return

    def _whose(self) -> str:
        told = self.culprits()
        return f"one of the {self.processes} processes is slow or gone{': ' if told else ''}{told}"

    def _say(self, line: str) -> None:
        print(f"osjax: {line}", file=sys.stderr, flush=True)

    def _report(self, waited: float) -> None:
        line = f"no step for {waited:.0f} s: stopping for a restart; the stacks of all threads are in {self.path}"
        self._say(line)
        try:
            with self.path.open("w") as file:
                file.write(line + "\n")
                faulthandler.dump_traceback(file, all_threads=True)
        except OSError:  # a full disk must not keep a hung process alive
            faulthandler.dump_traceback(sys.stderr, all_threads=True)
