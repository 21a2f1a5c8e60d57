"""One optimiser update: gradients over parts of a batch, non-finite guard, AdamW, EMA. Shared by all steps.

`apply` is the whole of it for one model and one loss. The adversarial step (`training/gan.py`), which has two of each,
is made of the same pieces: `over_parts`, `finite`, `advance` and `choose`.
"""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import optax

from osjax.errors import UserError
from osjax.training.freeze import fill
from osjax.training.optimizer import OptimizerConfig, learning_rate, update_ema
from osjax.training.state import TrainState
from osjax.types import Tree

Sums = dict[str, jax.Array]  # (sum, count) by the name of a metric that is a mean over a part of the batch
LossFn = Callable[[Tree, Tree, jax.Array], jax.Array | tuple[jax.Array, Sums]]
Mean = TypeVar("Mean")
Total = TypeVar("Total")
Carry = TypeVar("Carry")
Same = TypeVar("Same")


def over_parts(
    of_part: Callable[[Carry, Tree, jax.Array], tuple[Mean, Total, Carry]],
    carry: Carry,
    batch: Tree,
    key: jax.Array,
    accumulate: int,
) -> tuple[Mean, Total, Carry]:
    """The results of `of_part(carry, rows, key) -> (mean, total, carry)` on equal parts of a batch, put together.

    accumulate: the number of parts, one after the other, so that only one is in memory at a time.
    mean: a tree of floats, averaged over the parts. total: a tree, added up.
    carry: a tree that goes from part to part, such as running statistics; what the last part leaves is returned.
    batch: a tree of arrays (rows, ...). key: part n gets fold_in(key, n); a batch in one part gets the key itself.
    UserError where the batch does not divide into that many parts.
    """
    if accumulate == 1:
        return of_part(carry, batch, key)
    rows = jax.tree.leaves(batch)[0].shape[0]
    if rows % accumulate:
        raise UserError(f"a batch of {rows} does not divide into accumulate = {accumulate} parts: make it a multiple")
    # Interleaved split: every device keeps rows of its own in each part, so no rows move between devices.
    parts = jax.tree.map(lambda x: x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1), batch)

    def one(so_far, part):
        sums, carry = so_far
        index, rows = part
        mean, total, carry = of_part(carry, rows, jax.random.fold_in(key, index))
        return (jax.tree.map(jnp.add, sums, (mean, total)), carry), None

    first = jax.tree.map(lambda x: x[0], parts)
    shapes = jax.eval_shape(of_part, carry, first, key)[:2]
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    ((mean, total), carry), _ = jax.lax.scan(one, (zero, carry), (jnp.arange(accumulate), parts))
    return jax.tree.map(lambda x: x / accumulate, mean), total, carry


def gradients(
    loss_fn: LossFn, params: Tree, batch: Tree, key: jax.Array, accumulate: int
) -> tuple[jax.Array, Tree, Sums]:
    """Mean loss, mean gradients and sums over `accumulate` equal parts of the batch, one part in memory at a time.

    loss_fn(params, rows, key): the loss of a part, float32 scalar, or with it the sums of what it measures.
    params: gradients are with respect to all of it. batch, key, UserError: see `over_parts`.
    """

    def with_sums(params, batch, key):
        loss = loss_fn(params, batch, key)
        return loss if isinstance(loss, tuple) else (loss, {})

    def of_part(carry, rows, key):
        (loss, sums), grads = jax.value_and_grad(with_sums, has_aux=True)(params, rows, key)
        return (loss, grads), sums, carry

    (loss, grads), sums, _ = over_parts(of_part, None, batch, key, accumulate)
    return loss, grads, sums


def finite(*values: jax.Array) -> jax.Array:
    """Whether all these scalars, such as losses and norms of gradients, are finite: bool scalar."""
    return jnp.isfinite(jnp.stack(values)).all()


def choose(good: jax.Array, new: Same, old: Same) -> Same:
    """`new` where the bool scalar `good` is true, else `old`: two trees of one structure."""
    return jax.tree.map(lambda new, old: jnp.where(good, new, old), new, old)


def advance(
    state: TrainState, grads: Tree, good: jax.Array, tx: optax.GradientTransformation, cfg: OptimizerConfig
) -> tuple[TrainState, dict[str, jax.Array]]:
    """The next state and the metrics of its update: grad_norm (before clipping), grad_norm/GROUP of every group of
    parameters, update_norm, lr, skipped.

    grads: of the parameters that train (None for the others). good: bool scalar; where it is false, parameters, moments
    and average stay as they are and the update counts in `state.skipped`. tx: the update rule that cfg describes.
    """
    trained = cfg.freeze.trained(state.params)
    updates, opt_state = tx.update(grads, state.opt_state, trained)
    params = optax.apply_updates(trained, updates)
    ema = None if state.ema is None else update_ema(state.ema, params, cfg.ema_decay)
    params, opt_state, ema = choose(good, (params, opt_state, ema), (trained, state.opt_state, state.ema))
    skipped = state.skipped + jnp.where(good, 0, 1)
    lr = learning_rate(cfg)(state.step - state.skipped)  # a skipped update does not move the schedule
    groups = {group: tree for group, tree in grads.items() if jax.tree.leaves(tree)}
    metrics = {
        "grad_norm": optax.global_norm(grads),
        "update_norm": optax.global_norm(updates),
        "lr": jnp.asarray(lr),
        **{f"grad_norm/{group}": optax.global_norm(tree) for group, tree in groups.items()},
        "skipped": skipped,
    }
    after = {"skipped": skipped, "params": fill(params, state.params), "opt_state": opt_state, "ema": ema}
    return state.replace(step=state.step + 1, **after), metrics


def apply(
    state: TrainState,
    batch: Tree,
    key: jax.Array,
    loss_fn: LossFn,
    tx: optax.GradientTransformation,
    cfg: OptimizerConfig,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """The next state and metrics: loss, those of `advance`, and the means that the loss function gives sums for (NaN
    where there was nothing).

    loss_fn(params, rows, key): see `gradients`; it gets what `state.model` makes of the parameters. batch, key,
    UserError: see `over_parts`. tx: the update rule that cfg describes.
    A non-finite loss or gradient changes nothing but the counts of the state.
    """

    def loss_of(trained, batch, key):  # of the parameters that train: of others no gradient is computed
        return loss_fn(state.model(fill(trained, state.params)), batch, key)

    trained = cfg.freeze.trained(state.params)
    loss, grads, sums = gradients(loss_of, trained, batch, key, cfg.accumulate)
    good = finite(loss, optax.global_norm(grads))
    after, metrics = advance(state, grads, good, tx, cfg)
    return after, {"loss": loss, **metrics, **{name: total / count for name, (total, count) in sums.items()}}
