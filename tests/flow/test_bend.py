"""Times that follow from a measured path, on a path whose best times are known."""

import numpy as np
import pytest

from osjax.errors import UserError
from osjax.flow import bend

TIMES = np.linspace(1, 0, 51)[:-1]


def test_a_path_that_bends_alike_everywhere_is_visited_evenly():
    got = bend.schedule(8, TIMES, np.full(50, 3.0))
    np.testing.assert_allclose(got, np.linspace(1, 0, 9), atol=1e-3)
    assert got.dtype == np.float32 and (got[0], got[-1]) == (1, 0)


def test_steps_lie_closer_where_the_path_bends_more():
    got = bend.schedule(20, TIMES, np.where(TIMES > 0.5, 16.0, 1.0))
    steps = -np.diff(got)
    assert steps[0] == pytest.approx(steps[-1] / 3.4, rel=0.15)  # the root of 16, less what lies evenly
    assert np.all(steps > 0)


def test_euler_ends_nearer_at_the_times_that_its_path_asks_for():
    """dx/dt = exp(6 t): bends where t is near 1."""

    def error(times):
        x = sum(np.exp(6 * a) * (b - a) for a, b in zip(times[:-1], times[1:], strict=True))
        return abs(x + (np.exp(6) - 1) / 6)

    measured = bend.schedule(12, TIMES, 6 * np.exp(6 * TIMES))
    assert error(measured) < 0.7 * error(np.linspace(1, 0, 13))
    assert error(1 - measured[::-1]) > error(np.linspace(1, 0, 13))  # the other way round it is worse


def test_a_straight_path_and_a_single_step_are_schedules_too():
    np.testing.assert_allclose(bend.schedule(4, TIMES, np.zeros(50)), np.linspace(1, 0, 5), atol=1e-3)
    assert bend.schedule(1, TIMES, np.ones(50)).tolist() == [1, 0]
    with pytest.raises(UserError, match="at least 1 step"):
        bend.schedule(0, TIMES, np.ones(50))
