"""A run of the denoise loop that is watched call by call, for `calibration.py`: nothing is skipped."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from osjax.errors import UserError
from osjax.flow import sampler
from osjax.models import reuse
from osjax.models.velocity import Params
from osjax.parallel import sharding
from osjax.sampling.calibration import Branch, Curve
from osjax.sampling.denoise import Denoiser, plan
from osjax.sampling.inputs import Inputs, given
from osjax.sampling.settings import SHIFTED, SampleSettings
from osjax.types import Json


class Call(NamedTuple):
    """What a call showed, beside its velocity: what the blocks added, and the input of the first one."""

    residual_BND: jax.Array
    signal_BND: jax.Array


class Watched(NamedTuple):
    """A whole run. bend_S: of each step. by_branch: its calls, a row (time, growth, signal, residual) each."""

    bend_S: np.ndarray
    by_branch: dict[int, np.ndarray]


@partial(jax.jit, static_argnums=0)
def _call(
    module: nn.Module, params: Params, x_BNC: jax.Array, like_BTHWC: jax.Array, inputs: Inputs, at: tuple
) -> reuse.Reused:
    """A call that runs the blocks. at: (branch, time). like_BTHWC: latents of the size."""
    branch, t = at
    asked = reuse.Reuse("input", lambda _: jnp.zeros((), bool))
    t_B = jnp.full((len(x_BNC),), t, jnp.float32)
    return reuse.of_packed(module, params, x_BNC, like_BTHWC.shape[1:4], t_B, given(inputs, branch), asked)


@jax.jit
def _changes(before: Call, now: Call) -> jax.Array:
    """(growth, change of the signal, change of the residual) from one call of a branch to the next."""
    (old, signal), (new, at) = (jax.tree.map(lambda x: x.astype(jnp.float32), one) for one in (before, now))
    length, grown = (jnp.linalg.norm(x, axis=-1) for x in (old, new))
    signal_change = jnp.abs(at - signal).mean() / jnp.maximum(jnp.abs(signal).mean(), 1e-12)
    residual_change = jnp.abs(new - old).mean() / jnp.maximum(jnp.abs(old).mean(), 1e-12)
    return jnp.stack([(grown / jnp.maximum(length, 1e-12)).mean(), signal_change, residual_change])


def watch(
    denoiser: Denoiser, params: Params, noise_BTHWC: jax.Array, inputs: Inputs, settings: SampleSettings
) -> Watched:
    """A run by Euler's rule, of one group of rows.

    denoiser, params: of the video model. noise_BTHWC, inputs, settings: as the denoiser's call takes them.
    UserError where the model cannot be watched, or the run has fewer than three steps.
    """
    module = denoiser.module
    if not hasattr(module, "velocity_reusing"):
        raise UserError("this family of models runs all of itself in every call: there is nothing to calibrate")
    if settings.steps < 3:
        raise UserError(f"steps is {settings.steps}: a curve takes 3 or more, such as 50")
    calls, ends = plan(settings, module, noise_BTHWC.shape[1:])
    if module.inputs.guidance:
        inputs = inputs._replace(strength_B=settings.told(len(noise_BTHWC), module.inputs.guidance_img))
    state = jax.tree.map(module.pack, sampler.start(noise_BTHWC))
    update, before, rows, velocities = jax.jit(sampler.update), {}, {}, []
    for i in range(int(ends[-1])):
        branch, t = int(calls.branch_F[i]), np.float32(calls.t_F[i])
        made = _call(module, params, state.x, noise_BTHWC, inputs, (np.int32(branch), t))
        now = Call(made.residual_BND, made.signal_BND)
        known = branch in before
        rows.setdefault(branch, []).append([t, *(np.asarray(_changes(before[branch], now)) if known else (1.0, 0, 0))])
        before[branch], x = now, state.x
        state = update(state, calls, i, made.velocity_BNC)
        if calls.last_F[i]:
            velocities.append(np.asarray(state.x - x) / calls.dt_F[i])
    times = calls.t_F[: ends[-1]][np.asarray(calls.last_F[: ends[-1]])]
    bends = [np.sqrt(np.square(b - a).mean()) for a, b in zip(velocities[:-1], velocities[1:], strict=True)]
    bend_S = np.array(bends) / np.abs(np.diff(times))
    return Watched(np.append(bend_S, bend_S[-1]), {branch: np.array(row) for branch, row in rows.items()})


def curve(
    denoiser: Denoiser,
    params: Params,
    given_to: Sequence[tuple[jax.Array, Inputs]],
    settings: SampleSettings,
    says: Json,
) -> Curve:
    """The mean over runs.

    denoiser, params: of the video model. given_to: (noise, inputs) of each run. settings: of all; they are watched as
    Euler's rule samples them at the times of the formula, without a cache. says: them as JSON values. UserError: see
    `watch`.
    """
    plain = replace(settings, solver="euler", schedule=SHIFTED, reuse="none")
    with nullcontext() if denoiser.mesh is None else sharding.under(denoiser.mesh):
        runs = [watch(denoiser, params, noise, inputs, plain) for noise, inputs in given_to]
    calls, ends = plan(plain, denoiser.module, given_to[0][0].shape[1:])
    times = calls.t_F[: ends[-1]][np.asarray(calls.last_F[: ends[-1]])]
    branches = {}
    for branch in runs[0].by_branch:
        mean = np.mean([run.by_branch[branch] for run in runs], axis=0)
        if len(mean) > 1:
            branches[str(branch)] = Branch(*(_plain(column) for column in mean.T))
    bend_S = np.mean([run.bend_S for run in runs], axis=0)
    return Curve(_plain(times), _plain(bend_S), branches, len(runs), says)


def _plain(values: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(x), 7) for x in values)
