"""What was measured once of how a model samples: how its path bends, and how what its blocks add changes on the way.

`osjax calibrate` writes it beside the weights, for each condition mode; caches and the measured schedule read it.
"""

import contextlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from osjax import atomic, json_file, plain_line
from osjax.errors import UserError
from osjax.types import Json

FILE = "calibration.json"
VERSION = 1
MEND = "measure it again with osjax calibrate"
DEGREE = 2  # of the polynomial from the signal's change to the residual's


@dataclass(frozen=True)
class Branch:
    """The calls of one branch of guidance, in order, as lists of one length.

    times: of the calls, falling. growth: the ratio of the length of what the blocks add to that in the call before, the
    mean over tokens, 1 for the first. signal, residual: relative changes, by mean absolute values, since the call
    before, of the first block's input and of what the blocks add; 0 for the first.
    """

    times: tuple[float, ...]
    growth: tuple[float, ...]
    signal: tuple[float, ...]
    residual: tuple[float, ...]

    def log_length(self, times: np.ndarray) -> np.ndarray:
        """The log of the length of what the blocks add at these times, between those measured by lines."""
        logs = np.cumsum(np.log(np.maximum(self.growth, 1e-6)))
        return np.interp(times, self.times[::-1], logs[::-1])


@dataclass(frozen=True)
class Curve:
    """What was measured in one condition mode.

    times, bend: of the steps, falling, and the change a unit of time of the guided velocity behind each, root mean
    square. branches: by number, "0" to "2". samples: how many it is the mean of. settings: that they were made with.
    """

    times: tuple[float, ...]
    bend: tuple[float, ...]
    branches: Mapping[str, Branch]
    samples: int
    settings: Json

    def fit(self) -> np.ndarray:
        """Polynomial, highest power first, from the change of the signal to that of the residual: (DEGREE + 1,)."""
        signal, residual = (
            np.concatenate([getattr(one, name)[1:] for one in self.branches.values()])
            for name in ("signal", "residual")
        )
        return np.polyfit(signal, residual, min(DEGREE, len(np.unique(signal)) - 1))


@dataclass(frozen=True)
class Calibration:
    """The file of a model's curves. weights: what tells them from others, JSON values."""

    path: Path
    weights: Mapping[str, Any]

    def write(self, mode: str, curve: Curve) -> None:
        """Put the curve of a condition mode into the file, beside those of other modes, whole or not at all.

        A file that is damaged or of other weights is replaced.
        """
        modes: Json = {}
        with contextlib.suppress(UserError, KeyError, TypeError, ValueError):
            content = json_file.read(self.path, MEND)
            modes = dict(content["modes"]) if content["weights"] == self.weights else {}
        modes[mode] = asdict(curve)
        content = {"version": VERSION, "weights": dict(self.weights), "modes": modes}
        atomic.write_text(self.path, json.dumps(content, indent=1) + "\n")

    def read(self, mode: str) -> Curve:
        """The curve of a condition mode. UserError where there is none, or the file is damaged or of other weights."""
        path = self.path
        if not path.is_file():
            raise UserError(f"{path} does not exist: run osjax calibrate once, with prompts of your own")
        content = json_file.read(path, MEND, ("version", "weights", "modes"))
        if content["version"] != VERSION or not isinstance(content["modes"], dict):
            raise UserError(f"{path} is of another osjax: {MEND}")
        if content["weights"] != self.weights:
            raise UserError(f"{path} was measured with other weights than these: {MEND}")
        if mode not in content["modes"]:
            known = ", ".join(map(plain_line.plain, sorted(content["modes"])))
            raise UserError(f"{path} holds the modes {known}: run osjax calibrate --mode={mode}")
        try:
            return _curve(content["modes"][mode])
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UserError(f"{path} cannot be read ({error}): {MEND}") from error


def _curve(told: Mapping[str, Any]) -> Curve:
    branches = {}
    for name, one in told["branches"].items():
        columns = [_numbers(one[key]) for key in ("times", "growth", "signal", "residual")]
        if name not in ("0", "1", "2") or len(set(map(len, columns))) != 1 or len(columns[0]) < 2:
            raise ValueError(f"branch {name} is none")
        branches[name] = Branch(*columns)
    times, bend = _numbers(told["times"]), _numbers(told["bend"])
    if len(times) != len(bend) or len(times) < 2 or not branches or min(bend) < 0:
        raise ValueError("its curve is none")
    if any(late >= soon for one in (times, *(b.times for b in branches.values())) for soon, late in _pairs(one)):
        raise ValueError("its times do not fall")
    return Curve(times, bend, branches, int(told["samples"]), dict(told["settings"]))


def _pairs(values: tuple[float, ...]) -> Any:
    return zip(values[:-1], values[1:], strict=True)


def _numbers(values: Any) -> tuple[float, ...]:
    numbers = tuple(float(x) for x in values)
    if not all(math.isfinite(x) for x in numbers):
        raise ValueError("a number is not finite")
    return numbers
