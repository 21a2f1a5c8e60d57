"""Learning rates equal the original's; clipping, accumulation, moving average and skipping do what they say."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from osjax.errors import UserError
from osjax.training import optimizer, update
from osjax.training import state as states
from tests import golden

TABLE = golden.read_json("train_functions")["linear_warmup"]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row['warmup_steps']}_steps")
def test_warmup_matches_golden(row):
    cfg = optimizer.OptimizerConfig(lr=row["lr"], warmup_steps=row["warmup_steps"], initial_lr=row["initial_lr"])
    want, rate = row["first_8_steps"], optimizer.learning_rate(cfg)
    got = np.array([rate(n) for n in range(8)])
    assert golden.relative_error(got, want) < 1e-6
    if row["warmup_steps"]:
        late = np.array([rate(n + 1) for n in range(8)])
        assert golden.relative_error(late, want) > 1e-3


def test_cosine_starts_at_the_peak_and_ends_at_its_ratio():
    cfg = optimizer.OptimizerConfig(
        lr=1.0, schedule="cosine", warmup_steps=10, decay_steps=110, final_lr_ratio=0.1, initial_lr=0.0
    )
    rate = optimizer.learning_rate(cfg)
    assert [round(float(rate(n)), 4) for n in (9, 10, 60, 110, 500)] == [0.9091, 1.0, 0.55, 0.1, 0.1]


@pytest.mark.parametrize(
    "bad",
    [
        dict(schedule="cosin"),
        dict(schedule="cosine", warmup_steps=5, decay_steps=5),
        dict(ema_decay=1.0),
        dict(accumulate=0),
    ],
)
def test_settings_that_cannot_work_are_refused(bad):
    with pytest.raises(UserError):
        optimizer.OptimizerConfig(**bad)


# A linear model: enough for what an update does, and its gradient is known.
PLAIN = optimizer.OptimizerConfig(lr=0.1, eps=1e-8, clip_norm=1.0, ema_decay=0.75)
ROWS = np.random.default_rng(0).standard_normal((8, 5)).astype(np.float32)


def loss_fn(params, batch, key):
    return jnp.mean(batch @ params["w"])


def one(cfg, batch=ROWS, state=None, loss=loss_fn):
    tx = optimizer.make(cfg)
    if state is None:
        state = states.create(lambda: {"w": jnp.ones(5)}, tx, with_ema=True)
    return jax.jit(partial(update.apply, loss_fn=loss, tx=tx, cfg=cfg))(state, batch, jax.random.key(0))


@pytest.mark.parametrize("scale", [0.1, 100.0])
def test_clipping_is_torch_clip_grad_norm(scale):
    state, metrics = one(PLAIN, ROWS * scale)
    grad = ROWS.mean(0) * scale
    norm = np.linalg.norm(grad)
    assert float(metrics["grad_norm"]) == pytest.approx(norm, rel=1e-6)
    clipped = grad * min(1, 1 / (norm + 1e-6))
    first_moment = optax.tree_utils.tree_get(state.opt_state, "mu")["w"]
    np.testing.assert_allclose(first_moment, 0.1 * clipped, rtol=1e-5)
    assert (norm > 1) == (not np.allclose(first_moment, 0.1 * grad))


def test_moving_average_follows_at_its_decay():
    state, _ = one(PLAIN)
    want = 0.75 * np.ones(5) + 0.25 * np.asarray(state.params["w"])
    np.testing.assert_allclose(state.ema["w"], want, rtol=1e-6)
    assert not np.allclose(state.params["w"], want, rtol=1e-3)


def test_accumulated_parts_give_the_gradient_of_the_whole_batch():
    whole, parts = (update.gradients(squared, {"w": jnp.ones(5)}, ROWS, jax.random.key(0), n) for n in (1, 4))
    np.testing.assert_allclose(parts[0], whole[0], rtol=1e-6)
    np.testing.assert_allclose(parts[1]["w"], whole[1]["w"], rtol=1e-5)
    fewer = update.gradients(squared, {"w": jnp.ones(5)}, ROWS[:6], jax.random.key(0), 2)
    assert not np.allclose(fewer[1]["w"], whole[1]["w"], rtol=1e-2)


def squared(params, batch, key):
    return jnp.mean((batch @ params["w"]) ** 2)


def test_parts_draw_different_random_numbers():
    def noise(params, batch, key):
        return params["w"].sum() * jax.random.normal(key, ())

    key = jax.random.key(0)
    both, *_ = update.gradients(noise, {"w": jnp.ones(5)}, ROWS, key, 2)
    first, second = (5 * jax.random.normal(jax.random.fold_in(key, n), ()) for n in range(2))
    assert abs(both - (first + second) / 2) < 1e-5 and abs(first - second) > 1e-3


def test_a_batch_that_does_not_divide_into_parts_is_refused():
    with pytest.raises(UserError, match="batch of 8 does not divide into accumulate = 3"):
        update.gradients(loss_fn, {"w": jnp.ones(5)}, ROWS, jax.random.key(0), 3)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_non_finite_update_changes_nothing_but_the_counters(poison):
    before, _ = one(PLAIN)
    bad = ROWS.copy()
    bad[3, 2] = poison
    after, metrics = one(PLAIN, bad, before)
    assert (int(after.step), int(after.skipped), int(metrics["skipped"])) == (2, 1, 1)
    for name in ("params", "opt_state", "ema"):
        chex.assert_trees_all_equal(getattr(after, name), getattr(before, name))
    good, _ = one(PLAIN, ROWS, before)
    assert not np.array_equal(good.params["w"], before.params["w"]) and int(good.skipped) == 0


def test_a_skipped_update_does_not_move_the_learning_rate():
    cfg = optimizer.OptimizerConfig(lr=1.0, warmup_steps=4, initial_lr=0.0)
    tx = optimizer.make(cfg)
    state = states.create(lambda: {"w": jnp.ones(5)}, tx, with_ema=True)
    rates = []
    for batch in (ROWS, ROWS * np.nan, ROWS):
        state, metrics = one(cfg, batch, state)
        rates.append(round(float(metrics["lr"]), 5))
    assert rates == [0.2, 0.4, 0.4]
