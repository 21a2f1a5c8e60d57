"""Solvers on a flow whose path is known: one number of data with a normal distribution, and its exact velocity."""

import jax.numpy as jnp
import numpy as np
import pytest

from osjax.errors import UserError
from osjax.flow import guidance, sampler, shift
from osjax.flow.solvers import SOLVERS
from osjax.sampling.settings import SampleSettings
from tests.flow import integrate

MEAN, DEVIATION = 0.7, 0.5
NOISE = np.array([-1.3, 0.4, 2.0])


def deviation(t):
    return (((1 - t) * DEVIATION) ** 2 + t**2) ** 0.5


def path(t):
    """Where samples of NOISE are at time t."""
    return (1 - t) * MEAN + deviation(t) * NOISE


def velocity(x, t):
    """The mean of noise minus data, given that they mix to x at time t."""
    return -MEAN + (t - (1 - t) * DEVIATION**2) / deviation(t) ** 2 * (x - (1 - t) * MEAN)


def errors(solver, first, last, steps):
    """How far runs of so many steps end from the path, in float64 by the tables alone."""
    for count in steps:
        x, clip, turn = path(first), 0.0, 0.0
        moves = SOLVERS[solver](np.linspace(first, last, count + 1))
        for _, t, dt, bend in zip(*(column.astype(np.float64) for column in moves), strict=True):
            v = velocity(x, t)
            before, clip = clip, x - t * v
            x, turn = x + dt * v + bend[0] * (clip - before) + bend[1] * turn, clip - before
        yield np.abs(x - path(last)).max()


# solver -> its order between times where log-SNR is finite, and over a whole run, whose last step is Euler's
ORDERS = {"euler": (1, 1), "heun": (2, 2), "dpmpp_2m": (2, 1.5), "unipc": (3, 2)}


def test_every_solver_has_its_order_here():
    assert ORDERS.keys() == SOLVERS.keys()


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_error_falls_with_the_solvers_order(solver):
    coarse, fine = errors(solver, 0.9, 0.1, (64, 256))
    inside = np.log(coarse / fine) / np.log(4)
    assert inside == pytest.approx(ORDERS[solver][0], abs=0.15)
    coarse, fine = errors(solver, 1.0, 0.0, (64, 1024))
    assert np.log(coarse / fine) / np.log(16) > ORDERS[solver][1] - 0.1


def test_for_as_many_calls_the_higher_orders_end_nearer():
    ends = {name: next(errors(name, 1.0, 0.0, [20 if name == "heun" else 40])) for name in SOLVERS}
    assert ends["heun"] < ends["euler"] / 5 and ends["dpmpp_2m"] < ends["euler"] / 5
    assert ends["unipc"] < ends["dpmpp_2m"]


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_table_that_runs_is_the_solvers(solver):
    times = shift.schedule(9, 300, 3)
    x = path(1.0)[None, :, None].astype(np.float32)
    run = integrate.sample(lambda x, t_B, branch: velocity(x, t_B[0]), x, times, solver=solver)
    want, clip, turn = path(1.0), 0.0, 0.0
    for _, t, dt, bend in zip(*SOLVERS[solver](times), strict=True):
        v = velocity(want, t)
        before, clip = clip, want - t * v
        want, turn = want + dt * v + bend[0] * (clip - before) + bend[1] * turn, clip - before
    np.testing.assert_allclose(run[0, :, 0], want, atol=1e-5)
    other = integrate.sample(lambda x, t_B, branch: velocity(x, t_B[0]), x, times[::2], solver=solver)
    assert np.abs(other[0, :, 0] - want).max() > 1e-3


@pytest.mark.parametrize("solver", SOLVERS)
def test_what_is_remembered_is_the_velocity_of_all_branches_together(solver):
    """Guided predictions that sum up to one velocity are sampled as that velocity is, whatever is made between them."""
    offsets = jnp.array([0.4, -0.3, 1.1])
    times, weights = shift.schedule(7, 300, 3), guidance.weights(7, 3, 2.5, 2.0)
    sum_of_shares = offsets @ weights.coefficients()[0, :, 0]
    x = np.random.RandomState(1).standard_normal((1, 6, 2)).astype(np.float32)
    got = integrate.sample(lambda x, t_B, branch: jnp.sin(2 * x) * offsets[branch], x, times, weights, solver)
    want = integrate.sample(lambda x, t_B, branch: jnp.sin(2 * x) * sum_of_shares, x, times, solver=solver)
    np.testing.assert_allclose(got, want, atol=1e-5)
    unguided = integrate.sample(lambda x, t_B, branch: jnp.sin(2 * x) * offsets[branch], x, times, solver=solver)
    assert np.abs(got - unguided).max() > 1e-2


def test_calls_are_counted_for_every_solver():
    times, guided = shift.schedule(50, 240, 33), guidance.weights(50, 33, 7.5)
    counts = {name: tuple(sampler.plan(times, how, name)[1][-1] for how in (None, guided)) for name in SOLVERS}
    assert counts == {"euler": (50, 100), "heun": (99, 198), "dpmpp_2m": (50, 100), "unipc": (50, 100)}
    assert sampler.plan(times, None, "heun")[1].tolist() == [*range(2, 100, 2), 99]


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("steps", [1, 2])
def test_runs_of_one_and_two_steps_are_finite_and_one_step_is_eulers(solver, steps):
    moves = SOLVERS[solver](np.linspace(1, 0, steps + 1, dtype=np.float32))
    assert all(np.isfinite(column).all() for column in moves)
    assert steps == 2 or [column.tolist() for column in moves] == [[0], [1], [-1], [[0, 0]]]


def test_a_solver_that_is_not_there_is_refused_by_name():
    with pytest.raises(UserError, match="unknown solver 'rk4': use one of euler, heun, dpmpp_2m, unipc"):
        SampleSettings(solver="rk4")
