"""Runs of `flow.sampler` with any function for a velocity, as `sampling.denoise` makes them with a model."""

from functools import partial

import jax
import jax.numpy as jnp

from osjax.flow import sampler


def advance(velocity_fn, state, calls, first, last):
    """The state after the calls `first` up to `last`. velocity_fn(x, t_B, branch): a velocity of x's shape."""

    def call(i, state):
        t_B = jnp.full((len(state.x),), jnp.asarray(calls.t_F)[i])
        return sampler.update(state, calls, i, velocity_fn(state.x, t_B, jnp.asarray(calls.branch_F)[i]))

    return jax.lax.fori_loop(first, last, call, state)


def sample(velocity_fn, x, times, weights=None, solver="euler"):
    """The end of a whole run from x."""
    calls, ends = sampler.plan(times, weights, solver)
    return jax.jit(partial(advance, velocity_fn))(sampler.start(jnp.asarray(x)), calls, 0, ends[-1]).x
