"""One optimiser update from a loss: gradients, accumulation, non-finite guard, AdamW, EMA. Shared by all steps."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from osjax.errors import UserError
from osjax.training.freeze import fill
from osjax.training.optimizer import OptimizerConfig, learning_rate, update_ema
from osjax.training.state import TrainState

Sums = dict[str, jax.Array]  # (sum, count) by the name of a metric that is a mean over a part of the batch
LossFn = Callable[[Any, Any, jax.Array], jax.Array | tuple[jax.Array, Sums]]


def gradients(loss_fn: LossFn, params: Any, batch: Any, key: jax.Array, accumulate: int) -> tuple[jax.Array, Any, Sums]:
    """Mean loss, mean gradients and sums over `accumulate` equal parts of the batch, one part in memory at a time.

    UserError where the batch does not divide into that many parts.
    """

    def with_sums(params, batch, key):
        found = loss_fn(params, batch, key)
        return found if isinstance(found, tuple) else (found, {})

    value_and_grad = jax.value_and_grad(with_sums, has_aux=True)
    if accumulate == 1:
        (loss, sums), grads = value_and_grad(params, batch, key)
        return loss, grads, sums
    rows = jax.tree.leaves(batch)[0].shape[0]
    if rows % accumulate:
        raise UserError(f"a batch of {rows} does not divide into accumulate = {accumulate} parts: make it a multiple")
    # Interleaved split: every device keeps rows of its own in each part, so no rows move between devices.
    parts = jax.tree.map(lambda x: x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1), batch)

    def one(total, part):
        index, rows = part
        value = value_and_grad(params, rows, jax.random.fold_in(key, index))
        return jax.tree.map(jnp.add, total, value), None

    first = jax.tree.map(lambda x: x[0], parts)
    shapes = jax.eval_shape(value_and_grad, params, first, key)
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    ((loss, sums), grads), _ = jax.lax.scan(one, zero, (jnp.arange(accumulate), parts))
    return *jax.tree.map(lambda x: x / accumulate, (loss, grads)), sums


def apply(
    state: TrainState,
    batch: Any,
    key: jax.Array,
    loss_fn: LossFn,
    tx: optax.GradientTransformation,
    cfg: OptimizerConfig,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """The next state and metrics loss, grad_norm (before clipping), grad_norm/GROUP of every group of parameters,
    update_norm, lr, skipped, and the means that the loss function gives sums for (NaN where there was nothing).

    A non-finite loss or gradient leaves parameters, moments and average as they are and counts in `state.skipped`.
    """
    trained = cfg.freeze.trained(state.params)

    def loss_of(trained, batch, key):  # of the parameters that train: of others no gradient is computed
        return loss_fn(state.model(fill(trained, state.params)), batch, key)

    loss, grads, sums = gradients(loss_of, trained, batch, key, cfg.accumulate)
    norm = optax.global_norm(grads)
    good = jnp.isfinite(loss) & jnp.isfinite(norm)
    updates, opt_state = tx.update(grads, state.opt_state, trained)
    params = optax.apply_updates(trained, updates)
    ema = None if state.ema is None else update_ema(state.ema, params, cfg.ema_decay)
    params, opt_state, ema = jax.tree.map(
        lambda new, old: jnp.where(good, new, old),
        (params, opt_state, ema),
        (trained, state.opt_state, state.ema),
    )
    skipped = state.skipped + jnp.where(good, 0, 1)
    lr = learning_rate(cfg)(state.step - state.skipped)  # a skipped update does not move the schedule
    metrics = {"loss": loss, "grad_norm": norm, "update_norm": optax.global_norm(updates), "lr": jnp.asarray(lr)}
    groups = {group: tree for group, tree in grads.items() if jax.tree.leaves(tree)}
    metrics |= {f"grad_norm/{group}": optax.global_norm(tree) for group, tree in groups.items()}
    metrics |= {name: total / count for name, (total, count) in sums.items()}
    metrics["skipped"] = skipped
    return TrainState(state.step + 1, skipped, fill(params, state.params), opt_state, ema, state.frozen), metrics
