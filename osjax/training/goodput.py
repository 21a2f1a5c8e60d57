"""Goodput: the share of a run's wall time that went into steps which count, and what took the rest, over all starts.

`goodput.jsonl` in the workdir is a ledger by the wall clock, one line a step: until when, and what the time since the
line before was spent for. A kill takes away one line at most. Time that no line tells of is time the run was down.

`ml-goodput-measurement` (0.2.3) has the same terms, but keeps its records in Google Cloud Logging, without which it
reads none, and brings Google's clients for logging, monitoring and storage; a run here has to work without a network.
"""

import json
import logging
import math
import os
import time
from array import array
from collections.abc import Iterable, Mapping
from pathlib import Path

from osjax import json_file
from osjax.types import Json

log = logging.getLogger(__name__)
FILE = "goodput.jsonl"
STEP = "step"
ROUNDED = 0.002  # seconds that lines may lack, as they are rounded
MOST_STEPS = 2**28  # of a stage: a line with more is damaged
# What takes the rest of the time, in the order of a start, and how a page says it.
LOSSES = {
    "down": "no process at work, and what a killed one did since its last line",
    "start": "imports, devices, checks, tracing of fresh states, new weights",
    "prepare": "clips rendered, latents encoded, latents' statistics",
    "restore": "reading checkpoints",
    "compile": "the first call of a train step with a new shape",
    "data": "devices that waited for data",
    "evaluate": "held-out losses and samples",
    "save": "steps held up by checkpoints",
    "redone": "steps done again, after a kill or a return to a checkpoint",
    "skipped": "steps whose update was not finite",
    "hang": "steps that never came",
    "verify": "steps done twice to compare their bits",
}


class Account:
    """What the lines of a ledger add up to.

    spent: seconds by cause, `step` and the keys of LOSSES. They are all of the wall time from the first start on, but
    for what passed after the run was finished.
    """

    def __init__(self, lines: Iterable[Json] = ()):
        self.spent: dict[str, float] = {}
        self._of_steps: dict[str, array] = {}  # by stage: seconds of each step, those that count
        self._last: float | None = None
        self._finished = False
        for line in lines:
            self.add(line)

    def add(self, line: Json) -> None:
        """Take the next line of a ledger. ValueError, TypeError or KeyError for what is none, and nothing is taken."""
        at, spent = float(line["at"]), {str(cause): float(seconds) for cause, seconds in line["spent"].items()}
        stage, step, begins = str(line.get("stage", "")), int(line.get("step", -1)), int(line.get("begins", -1))
        skipped = [int(number) for number in line.get("skipped", ())]
        if not all(map(math.isfinite, (at, *spent.values()))) or step > MOST_STEPS:
            raise ValueError("no times")
        if self._last is not None and not self._finished:
            gap = at - sum(spent.values()) - self._last
            self._book("down", gap if gap > ROUNDED else 0.0)
        self._last, self._finished = at, bool(line.get("finished"))
        for cause, seconds in spent.items():
            self._book(cause, seconds)
        if begins >= 0:
            for number in range(begins, len(self._of_steps.get(stage, ()))):
                self._move(stage, number, "redone")
        if step >= 0:
            seconds = self._of_steps.setdefault(stage, array("d"))
            seconds.extend([0.0] * (step + 1 - len(seconds)))
            seconds[step] += spent.get(STEP, 0.0)
        for number in skipped:
            self._move(stage, number, "skipped")

    def shares(self) -> dict[str, float]:
        """`goodput` and `lost/CAUSE`, as shares of the wall time so far."""
        wall = sum(self.spent.values())
        if not wall:
            return {}
        lost = {f"lost/{cause}": self.spent[cause] / wall for cause in LOSSES if self.spent.get(cause)}
        return {"goodput": self.spent.get(STEP, 0.0) / wall, **lost}

    def _book(self, cause: str, seconds: float) -> None:
        if seconds:
            self.spent[cause] = self.spent.get(cause, 0.0) + seconds

    def _move(self, stage: str, step: int, cause: str) -> None:
        """The time of a step counts for something else now."""
        steps = self._of_steps.get(stage, ())
        if 0 <= step < len(steps):
            self._book(STEP, -steps[step])
            self._book(cause, steps[step])
            steps[step] = 0.0


class Ledger:
    """Takes the time of this process from `began` on: each `mark` says what the time since the mark before was for.

    path: of the file, which is continued; None keeps nothing. began: seconds since 1970; None: now.
    """

    def __init__(self, path: Path | None = None, began: float | None = None):
        now = time.time()
        self._offset = now - time.monotonic()  # so that a clock that is set does not reach in
        self._file, self._failed, self._path = None, False, path
        self.account = Account()
        if path is not None:
            self.account = read(path)
            self._open(path)
        last = self.account._last
        began = now if began is None else min(began, now)
        self._marked = began if last is None else max(began, last)
        self._spent: dict[str, float] = {}
        self._skipped: list[int] = []

    def _open(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            cut_short = path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
            self._file = path.open("a", buffering=1, encoding="utf-8")
            if cut_short:
                self._file.write("\n")
        except OSError as error:
            self._warn(error)

    def mark(self, cause: str) -> float:
        """All time since the last mark was spent for this; its seconds."""
        now = time.monotonic() + self._offset
        seconds, self._marked = max(0.0, now - self._marked), now
        self._spent[cause] = self._spent.get(cause, 0.0) + seconds
        return seconds

    def skip(self, step: int) -> None:
        """The update of this step, which has a line, was left out."""
        self._skipped.append(step)

    def write(self, stage: str = "", **about: object) -> None:
        """A line of what was marked since the last one.

        stage: of the run. about: `step`, which it was; `begins`, the step from which the stage goes on; `finished`,
        after which time does not count.
        """
        if self._skipped:
            about["skipped"], self._skipped = self._skipped, []
        spent = {cause: round(seconds, 4) for cause, seconds in self._spent.items() if seconds}
        line: Json = {"at": round(self._marked, 4), "stage": stage, **about, "spent": spent}
        self._spent = {}
        self.account.add(line)
        if self._file is not None:
            try:
                self._file.write(json.dumps(line) + "\n")
            except OSError as error:
                self._warn(error)

    def tell(self, stage: str, cause: str, **about: object) -> None:
        """A mark with a line of its own, as after what takes long. stage, about: as `write` takes them."""
        self.mark(cause)
        self.write(stage, **about)

    def _warn(self, error: OSError) -> None:
        if not self._failed:
            log.warning("%s cannot be written (%s): its time will count as down", self._path, error)
        self._failed = True

    def close(self) -> None:
        """Write what still waits to be written."""
        try:
            if self._file is not None:
                self._file.close()
        except OSError as error:
            self._warn(error)
        self._file = None


def read(path: Path) -> Account:
    """The account of a ledger; an empty one where there is none. Damaged lines are passed over: their time is down."""
    account = Account()
    try:
        texts = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            log.warning("%s cannot be read (%s): goodput begins anew", path, error.strerror)
        return account
    for text in filter(str.strip, texts):
        try:
            account.add(json_file.parse(text))
        except (ValueError, TypeError, KeyError, AttributeError):
            log.info("a line of %s is damaged: %.80r", path, text)
    return account


def process_began() -> float:
    """When this process began, in seconds since 1970; now where the system does not tell."""
    try:
        ticks = float(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
        return time.time() - max(0.0, age)
    except (OSError, IndexError, ValueError, AttributeError):
        return time.time()


def rows(spent: Mapping[str, float]) -> list[tuple[str, float, float, str]]:
    """Rows (cause, seconds, share, words) for a page: steps first, then what was lost, most first.

    spent: of an account.
    """
    wall = sum(spent.values()) or 1.0
    useful = ("goodput", spent.get(STEP, 0.0), spent.get(STEP, 0.0) / wall, "steps that count")
    lost = [(cause, spent[cause], spent[cause] / wall, words) for cause, words in LOSSES.items() if spent.get(cause)]
    return [useful, *sorted(lost, key=lambda row: -row[1])] if spent else []
