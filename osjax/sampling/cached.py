"""The denoise loop with calls that may skip the model's blocks, and what it remembers of those that did not.

A call of a branch of guidance expects its blocks to add what they added in the last call of the same branch that ran
them, or what a line through the last two says. Which calls skip them is decided before the run, by a table, or in it,
by the signal of `models/reuse.py`; both in one program, for every cache of `sampling/skips.py`.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from osjax.flow import sampler
from osjax.models import reuse
from osjax.models.reuse import Reuse
from osjax.models.velocity import Params
from osjax.parallel.sharding import constrain
from osjax.sampling.inputs import BRANCHES, Inputs, given
from osjax.types import Array, Axis


@dataclass(frozen=True)
class Look:
    """What shapes the program. signal: what calls look at, one of `reuse.SIGNALS`. lines: whether calls expect a line
    through the last two, instead of the last. sums: whether changes of the signal add up from call to call, or each is
    measured from the last call that ran the blocks.
    """

    signal: str = "none"
    lines: bool = False
    sums: bool = False


class Skips(NamedTuple):
    """Which calls skip the blocks, a row for each of `sampler.Calls`.

    must_F: whatever they look at. may_F: where the change of the signal stays below `limit`, a scalar, and fewer than
    `run` calls of the branch were skipped since its blocks ran. fit_P: polynomial, highest power first, from the
    relative change of the signal to that of what the blocks add.
    """

    must_F: Array
    may_F: Array
    limit: Array
    fit_P: Array
    run: Array


class Memory(NamedTuple):
    """What a run remembers, a row for each branch.

    residual_3BND: what the blocks added when they last ran. slope_3BND: its change by time; None without lines.
    signal_3BND: what was looked at; None without a signal. t_3: times of the last runs. spent_3: changes since then.
    since_3: calls that were skipped since then. ran_3: how often the blocks ran.
    """

    residual_3BND: jax.Array
    slope_3BND: jax.Array | None
    signal_3BND: jax.Array | None
    t_3: jax.Array
    spent_3: jax.Array
    since_3: jax.Array
    ran_3: jax.Array


@partial(jax.jit, static_argnums=(0, 1))
def start(module: nn.Module, look: Look, params: Params, x_BTHWC: jax.Array, inputs: Inputs) -> Memory:
    """A memory of nothing.

    module, params: of the video model. look: of the cache. x_BTHWC: latents of the size. inputs: of the run.
    """
    shapes = jax.eval_shape(partial(_ran, module, look), params, x_BTHWC, inputs)

    def zeros(like: jax.ShapeDtypeStruct) -> jax.Array:
        return _placed(jnp.zeros((BRANCHES, *like.shape), like.dtype))

    signal = None if look.signal == "none" else zeros(shapes.signal_BND)
    slope = zeros(shapes.residual_BND) if look.lines else None
    numbers = (jnp.zeros(BRANCHES, dtype) for dtype in (jnp.float32, jnp.float32, jnp.int32, jnp.int32))
    return Memory(zeros(shapes.residual_BND), slope, signal, *numbers)


def _ran(module: nn.Module, look: Look, params: Params, x_BTHWC: jax.Array, inputs: Inputs) -> reuse.Reused:
    """A call that runs the blocks."""
    t_B, told = jnp.zeros(len(x_BTHWC)), given(inputs, jnp.zeros((), jnp.int32))
    asked = Reuse(look.signal, lambda _: jnp.zeros((), bool))
    return reuse.of_packed(module, params, module.pack(x_BTHWC), x_BTHWC.shape[1:4], t_B, told, asked)


def _placed(x_3BND: jax.Array) -> jax.Array:
    return constrain(x_3BND, None, Axis.BATCH, Axis.TOKENS, Axis.ACT_EMBED)


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)
def advance(
    module: nn.Module,
    look: Look,
    params: Params,
    state: tuple[sampler.State, Memory],
    inputs: Inputs,
    calls: tuple[sampler.Calls, Skips],
    first: np.int32,
    last: np.int32,
) -> tuple[sampler.State, Memory]:
    """The state and the memory after the model calls `first` up to, but without, `last`, as `denoise.advance` has them.

    module, params, inputs, first, last: as there. look: of the cache. state: its buffers are donated. calls: of the
    plan, and which of them skip the blocks.
    """
    (points, memory), (table, skips) = state, calls
    size = points.x.shape[1:4]

    def call(i: jax.Array, carry: tuple[sampler.State, Memory]) -> tuple[sampler.State, Memory]:
        state, memory = carry
        branch, t = jnp.asarray(table.branch_F)[i], jnp.asarray(table.t_F)[i]
        t_B, told = jnp.full((len(state.x),), t), given(inputs, branch)
        asked = Reuse(look.signal, partial(_skip, look, skips, memory, branch, i), _predicted(memory, branch, t))
        made = reuse.of_packed(module, params, state.x, size, t_B, told, asked)
        after = _remember(look, skips, memory, branch, t, made)
        return sampler.update(state, table, i, made.velocity_BNC), after

    packed = jax.tree.map(module.pack, points)
    packed, memory = jax.lax.fori_loop(first, last, call, (packed, memory))
    return jax.tree.map(lambda x: module.unpack(x, size), packed), memory


def _predicted(memory: Memory, branch: jax.Array, t: jax.Array) -> jax.Array:
    residual_BND = memory.residual_3BND[branch]
    if memory.slope_3BND is None:
        return residual_BND
    ahead = (t - memory.t_3[branch]).astype(residual_BND.dtype)
    return residual_BND + ahead * memory.slope_3BND[branch]


def _spent(look: Look, skips: Skips, memory: Memory, branch: jax.Array, signal_BND: jax.Array) -> jax.Array:
    """What has changed since the blocks last ran, by the signal: float32 scalar."""
    before = memory.signal_3BND[branch].astype(jnp.float32)
    change = jnp.abs(signal_BND.astype(jnp.float32) - before).mean() / jnp.maximum(jnp.abs(before).mean(), 1e-12)
    change = jnp.maximum(jnp.polyval(skips.fit_P, change), 0.0)
    return change + memory.spent_3[branch] if look.sums else change


def _skip(look, skips, memory, branch, i, signal_BND) -> jax.Array:
    must = jnp.asarray(skips.must_F)[i]
    if look.signal == "none":
        return must
    may = jnp.asarray(skips.may_F)[i] & (memory.since_3[branch] < skips.run)
    return must | (may & (_spent(look, skips, memory, branch, signal_BND) < skips.limit))


def _remember(look: Look, skips: Skips, memory: Memory, branch: jax.Array, t: jax.Array, made: reuse.Reused) -> Memory:
    skipped = made.skipped

    def put(rows: jax.Array, new: jax.Array) -> jax.Array:
        return rows.at[branch].set(jnp.where(skipped, rows[branch], new))

    slope, signal, spent = memory.slope_3BND, memory.signal_3BND, memory.spent_3
    if slope is not None:
        apart = jnp.where(memory.ran_3[branch] > 0, t - memory.t_3[branch], jnp.inf)  # the first run knows no slope
        change = (made.residual_BND - memory.residual_3BND[branch]) / apart.astype(slope.dtype)
        slope = _placed(put(slope, change))
    if signal is not None:
        since = _spent(look, skips, memory, branch, made.signal_BND)
        spent = spent.at[branch].set(jnp.where(skipped, since, 0.0))
        # A sum goes from call to call; else the signal of the last run of the blocks is what others are held against.
        signal = signal.at[branch].set(made.signal_BND) if look.sums else put(signal, made.signal_BND)
        signal = _placed(signal)
    residual = _placed(put(memory.residual_3BND, made.residual_BND))
    since = memory.since_3.at[branch].set(jnp.where(skipped, memory.since_3[branch] + 1, 0))
    ran = memory.ran_3.at[branch].add(jnp.where(skipped, 0, 1))
    return Memory(residual, slope, signal, put(memory.t_3, t), spent, since, ran)
