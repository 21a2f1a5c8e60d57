"""Times that follow from how the path of a trained model bends, instead of from a formula.

A step of length h along a path whose velocity changes by b a unit of time ends h * h * b / 2 beside it. The sum over
a run of so many steps is least where every step adds the same: where steps lie as close as the root of b.
"""

import numpy as np

from osjax.errors import UserError

EVEN = 0.1  # share of the steps that lie evenly whatever was measured, so that no stretch is without


def schedule(num_steps: int, times_K: np.ndarray, bend_K: np.ndarray) -> np.ndarray:
    """Times that sampling visits: (num_steps + 1,) float32, from 1 (noise) down to 0 (data).

    times_K: falling, at which the path was measured; the ends of the path may lie beyond them. bend_K: the velocity's
    change a unit of time there, 0 or more. Raises UserError for fewer than one step.
    """
    if num_steps < 1:
        raise UserError(f"num_steps is {num_steps}: sampling needs at least 1 step.")
    grid = np.concatenate([[0.0], np.asarray(times_K, np.float64)[::-1], [1.0]])
    close = np.sqrt(np.asarray(bend_K, np.float64))[::-1]
    close = np.concatenate([close[:1], close, close[-1:]])
    fine = np.linspace(0, 1, 4097)
    density = np.interp(fine, grid, close)
    density = density / max(density.mean(), 1e-12) * (1 - EVEN) + EVEN
    passed = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return np.interp(np.linspace(passed[-1], 0, num_steps + 1), passed, fine).astype(np.float32)
