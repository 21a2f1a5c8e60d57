"""Euler integration of a velocity from noise to data, one model call at a time.

A step needs up to three predictions (see guidance.py). They are made one after another and summed with their
coefficients, in a flat list of calls over the whole run: the model is compiled once, a prediction whose coefficient is
zero is never made, and memory is that of one call.
Source: Open-Sora opensora/utils/sampling.py.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from osjax.flow.guidance import Weights

VelocityFn = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]

CALLS_MULTIPLE = 128  # tables are filled up to a multiple, so that the number of steps does not shape the program


class Calls(NamedTuple):
    """The model calls of a whole run, F rows, of which the rows after the last step are filling.

    t_F:            time of the call.
    branch_F:       which prediction: 0 prompt and condition, 1 negative prompt and condition, 2 without condition.
    coefficient_FT: its share in the step's velocity, for each latent frame.
    dt_F:           the step's change of time on its last call, 0 on the others.
    """

    t_F: np.ndarray | jax.Array
    branch_F: np.ndarray | jax.Array
    coefficient_FT: np.ndarray | jax.Array
    dt_F: np.ndarray | jax.Array


def plan(times: np.ndarray, weights: Weights | None = None) -> tuple[Calls, np.ndarray]:
    """The calls of a run, and where each step ends in them: (S,) int32, so that ends[-1] counts all calls.

    times: (S + 1,) from `shift.schedule`. weights: `guidance.weights` for as many steps; None for one unguided call a
    step, as guidance-distilled models want it. ValueError where the lengths differ.
    """
    steps = len(times) - 1
    if weights is None:
        weights = Weights(np.ones(steps, np.float32), np.ones((steps, 1), np.float32))
    if len(weights.text_S) != steps or len(weights.image_ST) != steps:
        raise ValueError(f"guidance weights are for {len(weights.text_S)} steps, the schedule has {steps}")
    coefficients_S3T = weights.coefficients()
    step_F, branch_F = np.nonzero(np.any(coefficients_S3T != 0, axis=-1))
    ends_S = np.searchsorted(step_F, np.arange(steps), side="right").astype(np.int32)
    times = np.asarray(times, np.float32)
    dt_F = np.zeros(len(step_F), np.float32)
    dt_F[ends_S - 1] = times[1:] - times[:-1]
    columns = (times[step_F], branch_F.astype(np.int32), coefficients_S3T[step_F, branch_F], dt_F)
    missing = -len(step_F) % CALLS_MULTIPLE
    return Calls(*(np.concatenate([x, np.zeros((missing, *x.shape[1:]), x.dtype)]) for x in columns)), ends_S


def advance(
    velocity_fn: VelocityFn, x: jax.Array, calls: Calls, first: int | jax.Array, last: int | jax.Array
) -> jax.Array:
    """Make the calls `first` to `last`, which must begin and end with a step. Traceable, bounds and tables too.

    velocity_fn(x, t_B, branch) -> velocity of x's shape; branch is a traced int32 scalar.
    x: tokens (B, N, C) with frames outermost in N, or latents (B, T, H, W, C). The state stays in float32 whatever the
        model computes in; velocity_fn receives float32 and may return less.
    """
    frames = calls.coefficient_FT.shape[1]
    if x.shape[1] % frames:
        raise ValueError(f"{frames} frames of guidance do not divide axis 1 of {x.shape}")
    columns = [jnp.asarray(column) for column in calls]
    per_token = (1, x.shape[1], *(1,) * (x.ndim - 2))

    def call(i: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        x, total = carry
        t, branch, coefficient_T, dt = (column[i] for column in columns)
        share = jnp.repeat(coefficient_T, x.shape[1] // frames).reshape(per_token)
        total = total + share * velocity_fn(x, jnp.full((x.shape[0],), t), branch).astype(jnp.float32)
        return x + dt * total, jnp.where(dt == 0, total, 0.0)

    x = x.astype(jnp.float32)
    return jax.lax.fori_loop(first, last, call, (x, jnp.zeros_like(x)))[0]


def sample(velocity_fn: VelocityFn, x_init: jax.Array, times: np.ndarray, weights: Weights | None = None) -> jax.Array:
    """Integrate `x_init` from times[0] to times[-1]; call it inside `jax.jit`.

    velocity_fn: as in `advance`. times, weights: as in `plan`. The result has the shape of `x_init`, in float32.
    """
    calls, ends = plan(times, weights)
    return advance(velocity_fn, x_init, calls, 0, int(ends[-1]))
