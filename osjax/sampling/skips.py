"""Which calls of a run skip the model's blocks: caches, each a row of `CACHES`, for the loop of `sampling/cached.py`.

What is known before the run is a table here: the first steps and the last always run the blocks, a branch of guidance
never skips more calls on end than it may, and MagCache decides from a measured curve alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from osjax.errors import UserError
from osjax.flow import sampler
from osjax.sampling.cached import Look, Skips
from osjax.sampling.calibration import DEGREE, Curve


@dataclass(frozen=True)
class Cache:
    """A rule by which calls skip the blocks.

    limit: how much may change until they run again, where nothing else is said. signal: what calls look at, see
    `models/reuse.py`. sums: whether changes add up from call to call. calibrated: whether it needs a measured curve.
    """

    limit: float
    signal: str = "none"
    sums: bool = False
    calibrated: bool = True


CACHES = {
    "magcache": Cache(0.1),  # Ma et al. 2025
    "teacache": Cache(0.2, "input", sums=True),  # Liu et al. 2024
    "first_block": Cache(0.1, "first_block", calibrated=False),  # as ParaAttention has it
}
NONE = "none"


def look_of(cache: str, lines: bool) -> Look:
    """What a cache makes of the program. lines: whether calls expect a line through the last two."""
    rule = CACHES[cache]
    return Look(rule.signal, lines, rule.sums)


@dataclass(frozen=True)
class Bounds:
    """What holds for every cache. limit: see `Cache`. run: calls of a branch that are skipped on end, at most. first:
    share of the steps ahead that run the blocks whatever changes.
    """

    limit: float
    run: int
    first: float


def nothing(calls: sampler.Calls) -> Skips:
    """The table that skips none of these calls."""
    F, fit_P = len(calls.t_F), np.zeros(DEGREE + 1, np.float32)
    fit_P[-2] = 1  # what is looked at is what is judged
    return Skips(np.zeros(F, bool), np.zeros(F, bool), np.float32(0), fit_P, np.int32(0))


def of_run(cache: str, bounds: Bounds, calls: sampler.Calls, ends: np.ndarray, curve: Curve | None) -> Skips:
    """The table of a run.

    cache: a row of CACHES. bounds: of it. calls, ends: of `sampler.plan`. curve: measured, for caches that need one.
    """
    rule, table = CACHES[cache], nothing(calls)
    table = table._replace(limit=np.float32(bounds.limit), run=np.int32(bounds.run))
    open_F = _open(calls, ends, bounds)
    if rule.signal != "none":
        if rule.calibrated and curve is not None:
            fit = curve.fit()
            table.fit_P[:] = 0
            table.fit_P[len(table.fit_P) - len(fit) :] = fit
        return table._replace(may_F=open_F)
    assert curve is not None  # whoever asks has seen to it
    branch_F = np.asarray(calls.branch_F)[: ends[-1]]
    for branch in np.unique(branch_F):
        rows = np.flatnonzero(branch_F == branch)
        table.must_F[rows] = list(_by_length(rows, calls, open_F, bounds, curve))
    return table


def _open(calls: sampler.Calls, ends: np.ndarray, bounds: Bounds) -> np.ndarray:
    """Whether a call may be skipped as far as the first steps, the last one and the branch's first call go: (F,)."""
    steps, open_F = len(ends), np.zeros(len(calls.t_F), bool)
    first = max(int(np.ceil(bounds.first * steps)), 1)
    if first < steps - 1:
        open_F[ends[first - 1] : ends[-2]] = True
    branch_F = np.asarray(calls.branch_F)[: ends[-1]]
    for branch in np.unique(branch_F):
        open_F[np.flatnonzero(branch_F == branch)[0]] = False
    return open_F


def _by_length(
    rows: np.ndarray, calls: sampler.Calls, open_F: np.ndarray, bounds: Bounds, curve: Curve
) -> Iterator[bool]:
    """Whether each call of a branch is skipped, by how the length of what the blocks add has changed since they ran.

    The rule is MagCache's: the ratio to the last run, its distance from 1 added up over the calls that were skipped.
    """
    name = str(int(np.asarray(calls.branch_F)[rows[0]]))
    if name not in curve.branches:
        raise UserError(
            f"the calibration knows no calls of branch {name}, as its guidance made none: run osjax calibrate with the "
            "guidance that you sample with"
        )
    logs = curve.branches[name].log_length(np.asarray(calls.t_F)[rows])
    ran, spent, run = logs[0], 0.0, 0
    for row, now in zip(rows, logs, strict=True):
        spent += abs(1 - np.exp(now - ran))
        skipped = bool(open_F[row] and spent < bounds.limit and run < bounds.run)
        ran, spent, run = (ran, spent, run + 1) if skipped else (now, 0.0, 0)
        yield skipped
