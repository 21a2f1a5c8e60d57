"""Euler integration of a velocity from noise to data, as one scan.

Source: Open-Sora opensora/utils/sampling.py.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from osjax.flow.guidance import Weights, combine

VelocityFn = Callable[[jax.Array, jax.Array, int], jax.Array]


def _spread(weight_T: jax.Array, x: jax.Array) -> jax.Array:
    """Weights of frames -> weights that broadcast against x, whose axis 1 has frames outermost."""
    per_frame = x.shape[1] // weight_T.shape[0]
    return jnp.repeat(weight_T, per_frame).reshape(1, x.shape[1], *(1,) * (x.ndim - 2))


def _guided(velocity_fn: VelocityFn, ways: int):
    """A step's velocity from the first `ways` predictions, in one call of the model."""

    def velocity(x, t, text, image_T):
        rows = jnp.concatenate([x] * ways) if ways > 1 else x
        prediction = velocity_fn(rows, jnp.full((rows.shape[0],), t), ways).astype(jnp.float32)
        return combine(tuple(jnp.split(prediction, ways)), text, _spread(image_T, x))

    return velocity


def sample(
    velocity_fn: VelocityFn,
    x_init: jax.Array,
    times: np.ndarray,
    weights: Weights | None = None,
    *,
    keep_trajectory: bool = False,
):
    """Integrate from times[0] to times[-1]. Traceable: call it inside `jax.jit`.

    velocity_fn(x, t_B, ways) -> velocity of x's shape. `ways` is a Python int, 1 to 3; x then holds `ways` copies of
        the batch, in the order: prompt and condition, negative prompt and condition, negative prompt and no condition.
        A closure that holds its text and condition stacked in that order takes the first len(x) rows of each.
    x_init: noise, tokens (B, N, C) with frames outermost in N, or latents (B, T, H, W, C). The state stays in
        float32 whatever the model computes in; velocity_fn receives float32 and may return less.
    times: (S + 1,) from `shift.schedule`.
    weights: guidance from `guidance.weights` for the same S steps; None for one unguided prediction per step, as
        guidance-distilled models want it. Each step calls the model with only the copies that its weights need.
    keep_trajectory: also return every x, (S + 1, *x_init.shape), x_init first.
    """
    steps = len(times) - 1
    if weights is None:
        weights = Weights(np.ones(steps, np.float32), np.ones((steps, 1), np.float32))
    if len(weights.text_S) != steps or len(weights.image_ST) != steps:
        raise ValueError(f"guidance weights are for {len(weights.text_S)} steps, the schedule has {steps}")
    if x_init.shape[1] % weights.image_ST.shape[1]:
        raise ValueError(f"{weights.image_ST.shape[1]} frames of guidance do not divide axis 1 of {x_init.shape}")

    ways_S = weights.ways()
    choices = sorted(set(ways_S.tolist()))
    branches = [_guided(velocity_fn, ways) for ways in choices]

    def step(x, table):
        t, dt, choice, text, image_T = table
        # With a single branch `switch` calls it directly, so the usual run compiles the model once.
        x = x + dt * jax.lax.switch(choice, branches, x, t, text, image_T)
        return x, x if keep_trajectory else None

    x_init = x_init.astype(jnp.float32)
    times = np.asarray(times, np.float32)
    tables = (times[:-1], times[1:] - times[:-1], np.searchsorted(choices, ways_S), *weights)
    x, path = jax.lax.scan(step, x_init, jax.tree.map(jnp.asarray, tables))
    return (x, jnp.concatenate([x_init[None], path])) if keep_trajectory else x
