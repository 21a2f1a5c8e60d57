"""metrics.jsonl: one line a step, appended once, continued after a restart without gaps or repeats."""

import json
import logging
import math
import os
from pathlib import Path
from typing import Any

from osjax import atomic, file_name, json_file
from osjax.errors import UserError
from osjax.types import Json

log = logging.getLogger(__name__)
MOST = 2.0**53  # of a number that is drawn


class MetricsLog:
    """The file `folder/metrics.jsonl`, to which a stage appends lines.

    Opening drops this stage's lines at or after `first_step`: a run that restarts from an older checkpoint does those
    steps again.
    """

    def __init__(self, folder: Path, stage: str, first_step: int):
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.stage = folder / "metrics.jsonl", stage
        self._file = None
        self._failed = False
        self.rewind(first_step)

    def rewind(self, first_step: int) -> None:
        """Drop this stage's lines at or after `first_step`."""
        self.close()
        lines, damaged = _parsed(self.path)
        if damaged:
            aside = self.path.with_name(f"{self.path.name}.damaged")
            with aside.open("a", encoding="utf-8") as file:
                file.write("".join(f"{line}\n" for line in damaged))
            log.warning("%d lines of %s are damaged: they are set aside in %s", len(damaged), self.path, aside)
        kept = [line for line in lines if line["stage"] != self.stage or line["step"] < first_step]
        atomic.write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = self.path.open("a", buffering=1)

    def write(self, step: int, values: Json) -> None:
        """Append a line: the step's number and these values (JSON ones) by name.

        A disk that takes none is reported once; training is worth more than its log. A file that was deleted is begun
        anew, loudly. UserError where the whole folder is gone: nobody would find what is trained.
        """
        self._find()
        line = {"stage": self.stage, "step": step, **{name: _plain(value) for name, value in values.items()}}
        try:
            self._file.write(json.dumps(line) + "\n")
        except OSError as error:
            self._warn(error)

    def _find(self) -> None:
        """See that lines go to the file that lies at `path`, not to one that was deleted."""
        if self._file is None:
            return
        try:
            if os.stat(self.path).st_ino == os.fstat(self._file.fileno()).st_ino:
                return
        except FileNotFoundError:
            if not self.path.parent.is_dir():
                raise UserError(
                    f"{self.path.parent} was deleted while the run wrote to it: start it again, in a folder that stays"
                ) from None
        except OSError:  # a disk that is away for a while: whatever is wrong with it, the write says
            return
        log.warning("%s was deleted or replaced: earlier lines are lost, it is begun anew", self.path)
        self.close()
        self._file = self.path.open("a", buffering=1)

    def _warn(self, error: OSError) -> None:
        if not self._failed:
            log.warning("%s cannot be written (%s): lines are missing", self.path, error)
        self._failed = True

    def close(self) -> None:
        """Write what still waits to be written."""
        try:
            if self._file is not None:
                self._file.close()
        except OSError as error:  # lines that still waited to be written
            self._warn(error)


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read(path: Path) -> list[Json]:
    """All lines of the metrics file at `path`, none where there is no file; a last one cut short by a kill is left out.

    Lines that are damaged are left out, which the log says.
    """
    lines, damaged = _parsed(path)
    if damaged:
        log.warning("%d lines of %s are damaged and left out, the first is %.80r", len(damaged), path, damaged[0])
    return lines


def problems(path: Path) -> list[str]:
    """What is wrong with the metrics file at `path`: lines that are none, steps of a stage that lack or come twice."""
    lines, damaged = _parsed(path)
    told = [f"{path}: {len(damaged)} lines are damaged, the first is {damaged[0][:80]!r}"] if damaged else []
    steps: dict[str, list[int]] = {}
    for line in lines:
        steps.setdefault(line["stage"], []).append(line["step"])
    for stage, numbers in steps.items():
        wrong = next((want for want, got in enumerate(numbers) if want != got), None)
        if wrong is not None:
            told.append(f"{path}: {stage} has step {numbers[wrong]} where step {wrong} should be")
    return told


def numbers(line: Json) -> Json:
    """What a line says in numbers that can be drawn, and its stage. line: of `read`; a foreign file says anything."""
    drawn = {k: v for k, v in line.items() if type(v) in (int, float) and abs(v) < MOST}  # NaN is not
    return {**drawn, "stage": line["stage"], "step": line["step"]}


def _parsed(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The lines of a metrics file, and those that are none; a last one that was cut short is neither."""
    try:
        texts = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return [], []
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): mend it, or move it away") from error
    lines, damaged = [], []
    for number, text in enumerate(texts, 1):
        try:
            line = json_file.parse(text)
            stage, step = line.get("stage"), line.get("step")
            # A stage is a folder, too.
            if not isinstance(stage, str) or not file_name.is_plain(stage) or type(step) is not int or abs(step) > MOST:
                raise ValueError("no line of a stage")
            lines.append(line)
        except ValueError:
            if text.strip() and number < len(texts):
                damaged.append(text)
    return lines, damaged
