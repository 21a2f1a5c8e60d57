"""Solvers of the flow's equation dx/dt = v(x, t), each a table of what every evaluation of the velocity moves.

A velocity v at (x, t) points at a clip, D = x - t v: where the straight line from here ends. All solvers move alike,

    x <- x + dt v + bend_1 (D - D') + bend_2 (D' - D''),

D' and D'' being the clips that the two evaluations before pointed at: how these turn says how the path is bent. So one
compiled program serves every row of `SOLVERS`, and a solver is a function of the times that are visited alone.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Moves(NamedTuple):
    """The evaluations of a run in order, E rows.

    step_E: the step that each belongs to, int32. t_E: its time. dt_E, bend_E2: the move behind it, float32.
    """

    step_E: np.ndarray
    t_E: np.ndarray
    dt_E: np.ndarray
    bend_E2: np.ndarray


def euler(times: np.ndarray) -> Moves:
    """Straight on: first order, as the original samples. times: (S + 1,) from `shift.schedule`."""
    return _one_a_step(times, np.zeros((len(times) - 1, 2)))


def heun(times: np.ndarray) -> Moves:
    """An Euler step, then half the way back and half by the velocity at its end: second order, two evaluations a step.

    times: as `euler` takes them. A step that ends at time 0, where no model was trained, is Euler's, as in Karras et
    al. 2022, algorithm 1.
    """
    t_S, dt_S = times[:-1], np.diff(times)
    steps = np.arange(len(t_S))
    ahead = _rows(steps, t_S, dt_S, np.zeros((len(steps), 2)))
    turned = times[1:] > 0
    end = times[1:][turned].astype(np.float64)
    bend = -dt_S[turned] / (2 * end)  # D - D' is the end's time times the difference of the two velocities
    back = _rows(steps[turned], end, np.zeros(len(end)), np.stack([bend, 0 * bend], axis=1))
    order = np.argsort(np.concatenate([ahead.step_E, back.step_E]), kind="stable")
    return Moves(*(np.concatenate(pair)[order] for pair in zip(ahead, back, strict=True)))


def dpmpp_2m(times: np.ndarray) -> Moves:
    """DPM-Solver++(2M) on the straight path: second order, by the clip that the step before pointed at.

    times: as `euler` takes them. The first step and the last, whose log-SNR has no end, are Euler's; so is the second
    where the first begins in noise alone. Source: Lu et al. 2022, algorithm 2, with alpha = 1 - t and sigma = t.
    """
    return _one_a_step(times, np.stack([_extrapolation(times), np.zeros(len(times) - 1)], axis=1))


def unipc(times: np.ndarray) -> Moves:
    """UniPC of second order: steps as DPM-Solver++(2M), each mended by the clip that the next evaluation points at.

    times: as `euler` takes them. Third order but for the last step, which is Euler's and is not mended.
    Source: Zhao et al. 2023, with B(h) = exp(h) - 1 and predictions of the data.
    """
    keeps_S, ahead_S, ratio_S = _keeps(times), _extrapolation(times), _ratio(times)
    h_S = np.diff(_log_snr(times))
    # The mended step is keeps x + (1 - keeps) (D' + older (D' - D'') + newer (D - D')), D being at its end. The shares
    # are exact where D is a parabola in log-SNR; 0 and 1/2, the line, where there is no D'' or it lies in noise alone.
    older_S, newer_S = np.zeros(len(h_S)), np.full(len(h_S), 0.5)
    for step in np.flatnonzero((ratio_S > 0) & np.isfinite(h_S)):
        h, before = h_S[step], -1 / ratio_S[step]
        first = (np.expm1(-h) / -h - 1) / np.expm1(-h)
        second = 2 * ((np.expm1(-h) / -h - 1) / -h - 0.5) / np.expm1(-h)
        older, newer_S[step] = np.linalg.solve([[1, 1], [before, 1]], [first, second])
        older_S[step] = older * ratio_S[step]
    mended_S2 = np.stack([(1 - keeps_S) * newer_S, (1 - keeps_S) * older_S - ahead_S], axis=1)
    bend_S2 = np.stack([ahead_S, np.zeros(len(h_S))], axis=1)
    bend_S2[1:] += keeps_S[1:, None] * mended_S2[:-1]
    return _one_a_step(times, bend_S2)


# name -> its table; what `sample.solver` can be
SOLVERS: dict[str, Callable[[np.ndarray], Moves]] = {
    "euler": euler,
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
    "unipc": unipc,
}


def _one_a_step(times: np.ndarray, bend_S2: np.ndarray) -> Moves:
    return _rows(np.arange(len(times) - 1), times[:-1], np.diff(times), bend_S2)


def _rows(step: np.ndarray, t: np.ndarray, dt: np.ndarray, bend: np.ndarray) -> Moves:
    return Moves(step.astype(np.int32), *(np.asarray(x, np.float32) for x in (t, dt, bend)))


def _log_snr(times: np.ndarray) -> np.ndarray:
    """Half the log of the signal-to-noise ratio, float64: -inf in noise, inf in data."""
    times = times.astype(np.float64)
    with np.errstate(divide="ignore"):
        return np.log1p(-times) - np.log(times)


def _keeps(times: np.ndarray) -> np.ndarray:
    """The share of a step's noise that is left behind it: (S,) float64."""
    return times[1:].astype(np.float64) / times[:-1]


def _ratio(times: np.ndarray) -> np.ndarray:
    """Length of each step over that of the one before, in log-SNR; 0 where there is none or one of them has no end."""
    h_S = np.diff(_log_snr(times))
    ratio_S = np.zeros(len(h_S))
    with np.errstate(invalid="ignore"):
        ratio_S[1:] = h_S[1:] / h_S[:-1]
    return np.where(np.isfinite(ratio_S), ratio_S, 0.0)


def _extrapolation(times: np.ndarray) -> np.ndarray:
    """The share of (D - D') in each step of second order."""
    return (1 - _keeps(times)) * _ratio(times) / 2
