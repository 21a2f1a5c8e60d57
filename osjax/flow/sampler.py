"""A velocity integrated from noise to data, one model call at a time.

An evaluation of the velocity needs up to three predictions (see guidance.py). They are made one after another and
summed with their coefficients, in a flat list of calls over the whole run: the model is compiled once, a prediction
whose coefficient is zero is never made, and memory is that of one call. What an evaluation moves is the solver's.
Source: Open-Sora opensora/utils/sampling.py.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from osjax.flow.guidance import Weights
from osjax.flow.solvers import SOLVERS

CALLS_MULTIPLE = 128  # tables are filled up to a multiple, so that the number of steps does not shape the program


class Calls(NamedTuple):
    """The model calls of a whole run, F rows, of which the rows after the last step are filling.

    t_F:            time of the call.
    branch_F:       which prediction: 0 prompt and condition, 1 negative prompt and condition, 2 without condition.
    coefficient_FT: its share in the velocity, for each latent frame.
    last_F:         whether it completes an evaluation of the velocity.
    dt_F, bend_F2:  what that moves then, see `solvers`; 0 on the other calls.
    """

    t_F: np.ndarray | jax.Array
    branch_F: np.ndarray | jax.Array
    coefficient_FT: np.ndarray | jax.Array
    last_F: np.ndarray | jax.Array
    dt_F: np.ndarray | jax.Array
    bend_F2: np.ndarray | jax.Array


class State(NamedTuple):
    """Where a run stands, arrays of one shape: tokens (B, N, C) with frames outermost in N, or latents (B, T, H, W, C).

    It is float32 whatever the model computes in. x: the point. velocity: what its predictions sum up to so far.
    clip: what the evaluation before pointed at. turn: how that had changed from the one before it.
    """

    x: jax.Array
    velocity: jax.Array
    clip: jax.Array
    turn: jax.Array


def plan(times: np.ndarray, weights: Weights | None = None, solver: str = "euler") -> tuple[Calls, np.ndarray]:
    """The calls of a run, and where each step ends in them: (S,) int32, so that ends[-1] counts all calls.

    times: (S + 1,) from `shift.schedule`. weights: `guidance.weights` for as many steps; None for one unguided call an
    evaluation, as guidance-distilled models want it. solver: one of SOLVERS. ValueError where the lengths differ.
    """
    steps = len(times) - 1
    if weights is None:
        weights = Weights(np.ones(steps, np.float32), np.ones((steps, 1), np.float32))
    if len(weights.text_S) != steps or len(weights.image_ST) != steps:
        raise ValueError(f"guidance weights are for {len(weights.text_S)} steps, the schedule has {steps}")
    moves = SOLVERS[solver](np.asarray(times, np.float32))
    coefficients_E3T = weights.coefficients()[moves.step_E]
    evaluation_F, branch_F = np.nonzero(np.any(coefficients_E3T != 0, axis=-1))
    step_F = moves.step_E[evaluation_F]
    last_F = np.append(np.diff(evaluation_F) > 0, True)
    columns = (
        moves.t_E[evaluation_F],
        branch_F.astype(np.int32),
        coefficients_E3T[evaluation_F, branch_F],
        last_F,
        np.where(last_F, moves.dt_E[evaluation_F], 0),
        np.where(last_F[:, None], moves.bend_E2[evaluation_F], 0),
    )
    missing = -len(step_F) % CALLS_MULTIPLE
    calls = Calls(*(np.concatenate([x, np.zeros((missing, *x.shape[1:]), x.dtype)]) for x in columns))
    return calls, np.searchsorted(step_F, np.arange(steps), side="right").astype(np.int32)


def start(x: jax.Array) -> State:
    """The state of a run that begins at x, which may be of any float type; each part has a buffer of its own."""
    return State(x.astype(jnp.float32), *(jnp.zeros_like(x, jnp.float32) for _ in range(3)))


def update(state: State, calls: Calls, i: int | jax.Array, prediction: jax.Array) -> State:
    """The state after call i of the table. Traceable, the index and the table too.

    prediction: the velocity that the call gave, of the state's shape. ValueError where the frames of the guidance do
    not divide those of the state.
    """
    x, frames = state.x, calls.coefficient_FT.shape[1]
    if x.shape[1] % frames:
        raise ValueError(f"{frames} frames of guidance do not divide axis 1 of {x.shape}")
    t, _, coefficient_T, last, dt, bend_2 = (jnp.asarray(column)[i] for column in calls)
    share = jnp.repeat(coefficient_T, x.shape[1] // frames).reshape(1, x.shape[1], *(1,) * (x.ndim - 2))
    velocity = state.velocity + share * prediction.astype(jnp.float32)
    clip = x - t * velocity
    turn = clip - state.clip
    # Behind the barrier compilers round what is straight as if nothing could be added: Euler's bits are its own.
    straight = jax.lax.optimization_barrier(x + dt * velocity)
    return State(
        straight + (bend_2[0] * turn + bend_2[1] * state.turn),
        jnp.where(last, 0.0, velocity),
        jnp.where(last, clip, state.clip),
        jnp.where(last, turn, state.turn),
    )
