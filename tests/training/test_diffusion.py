"""The diffusion step: its random draws, its optional preparation, and that it learns."""

import jax
import numpy as np
import pytest

from osjax import models
from osjax.errors import UserError
from osjax.flow import path, shift
from osjax.parallel import sharding
from osjax.parallel.host import to_global
from osjax.training import diffusion, update
from tests.training import tiny

MODULE = models.build(tiny.CONFIG)


@pytest.fixture(scope="module")
def loss_fn():
    with_sums = diffusion.make_loss(MODULE)
    return jax.jit(lambda *arguments: with_sums(*arguments)[0])


def test_the_loss_of_fixed_draws_is_the_mean_squared_error_of_the_velocity(loss_fn):
    batch, key = tiny.batch(4), jax.random.key(5)
    _, key_t, key_noise = jax.random.split(key, 3)
    t_B = path.draw_timesteps(key_t, 4, shift.training_alpha(2, 4, 8))
    noise = path.draw_noise(key_noise, batch.latents_BTHWC)
    fixed = jax.jit(lambda *a: diffusion.loss(MODULE, *a))
    got = loss_fn(tiny.host_params(), batch, key)
    assert float(got) == pytest.approx(float(fixed(tiny.host_params(), batch, noise, t_B)), rel=1e-6)
    assert float(got) != pytest.approx(float(fixed(tiny.host_params(), batch, noise, t_B * 0.9)), rel=1e-4)


def test_a_shift_that_is_asked_for_replaces_the_one_of_the_size():
    batch, key = tiny.batch(4), jax.random.key(5)
    _, key_t, key_noise = jax.random.split(key, 3)
    noise = path.draw_noise(key_noise, batch.latents_BTHWC)
    got = float(jax.jit(diffusion.make_loss(MODULE, alpha=6.0))(tiny.host_params(), batch, key)[0])
    fixed = jax.jit(lambda *a: diffusion.loss(MODULE, *a))
    by_shift = [
        float(fixed(tiny.host_params(), batch, noise, path.draw_timesteps(key_t, 4, alpha)))
        for alpha in (6.0, shift.training_alpha(2, 4, 8))
    ]
    assert got == pytest.approx(by_shift[0], rel=1e-6) and got != pytest.approx(by_shift[1], rel=1e-3)


def test_a_model_that_answers_zero_has_the_loss_of_the_target_itself(loss_fn):
    batch = tiny.batch(4)
    params = {**tiny.host_params(), "final_layer": jax.tree.map(np.zeros_like, tiny.host_params()["final_layer"])}
    noise = path.draw_noise(jax.random.split(jax.random.key(5), 3)[2], batch.latents_BTHWC)
    want = np.mean((np.asarray(noise) * (1 - 1e-5) - batch.latents_BTHWC) ** 2)
    assert float(loss_fn(params, batch, jax.random.key(5))) == pytest.approx(want, rel=1e-5)


def test_draws_depend_on_the_step_and_the_run_key_and_on_nothing_else():
    mesh = tiny.single()
    state, _, step = tiny.start(mesh)
    rows = to_global(tiny.batch(), mesh)

    def loss(number, seed=7):
        fresh = jax.tree.map(lambda x: x + 0, state).replace(step=state.step + number)
        return float(step(fresh, rows, sharding.random_key(seed, mesh))[1]["loss"])

    first = loss(0)
    assert loss(0) == first and len({first, loss(1), loss(2), loss(0, seed=8)}) == 4


def test_preparation_runs_inside_the_step_with_a_key_of_its_own(loss_fn):
    def no_text(batch, key):
        keep = jax.random.bernoulli(key, 0.5, (batch.y_vec_BC.shape[0], 1))
        return batch._replace(y_vec_BC=batch.y_vec_BC * keep)

    batch, key = tiny.batch(4), jax.random.key(5)
    prepared = jax.jit(diffusion.make_loss(MODULE, no_text))
    by_hand = no_text(batch, jax.random.split(key, 3)[0])
    got = float(prepared(tiny.host_params(), batch, key)[0])
    assert got == pytest.approx(float(loss_fn(tiny.host_params(), by_hand, key)), rel=1e-6)
    assert got != pytest.approx(float(loss_fn(tiny.host_params(), batch, key)), rel=1e-6)


def test_a_latent_that_cannot_be_cut_into_patches_is_refused():
    batch = tiny.batch(2)
    odd = batch._replace(latents_BTHWC=batch.latents_BTHWC[:, :, :3], cond_BTHWC=batch.cond_BTHWC[:, :, :3])
    with pytest.raises(UserError, match="3x8 cannot be cut into 2x2 patches"):
        jax.eval_shape(diffusion.make_loss(MODULE), tiny.host_params(), odd, jax.random.key(0))


def test_a_few_steps_on_one_batch_lower_its_loss():
    mesh = tiny.single()
    state, _, step = tiny.start(mesh)
    rows = to_global(tiny.batch(), mesh)
    losses = []
    for _ in range(100):
        state, metrics = step(state, rows, tiny.run_key(mesh))
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_losses_by_time_are_the_means_of_the_clips_whose_times_fall_there():
    """Whatever the accumulation; a part of [0, 1] without a clip has no mean."""
    losses_B = np.array([1.0, 2.0, 4.0, 8.0], np.float32)
    sums = diffusion.by_time(losses_B, np.array([0.05, 0.95, 1.0, 0.85], np.float32))
    means = {name: float(total / count) for name, (total, count) in sums.items()}
    assert means["loss/t0.0-0.2"] == 1.0 and means["loss/t0.8-1.0"] == pytest.approx(14 / 3)
    assert sorted(means) == [f"loss/t{i / 5:.1f}-{(i + 1) / 5:.1f}" for i in range(5)]
    assert np.isnan([means[f"loss/t{i / 5:.1f}-{(i + 1) / 5:.1f}"] for i in (1, 2, 3)]).all()

    def loss_fn(params, batch, key):
        losses_B = (batch[:, 0] * params["w"]) ** 2
        return losses_B.mean(), diffusion.by_time(losses_B, batch[:, 1])

    rows = np.random.default_rng(0).uniform(size=(8, 2)).astype(np.float32)
    for parts in (1, 4):
        loss, _, sums = update.gradients(loss_fn, {"w": 2.0}, rows, jax.random.key(0), parts)
        assert float(loss) == pytest.approx(float(np.mean(4 * rows[:, 0] ** 2)), rel=1e-6)
        totals = np.array([[float(x) for x in pair] for pair in sums.values()])
        assert totals.sum(0) == pytest.approx([8 * float(loss), 8], rel=1e-6)
        here = rows[rows[:, 1] < 0.2]
        assert totals[0] == pytest.approx([np.sum(4 * here[:, 0] ** 2), len(here)], rel=1e-6)
