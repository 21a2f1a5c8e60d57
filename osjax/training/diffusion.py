"""The flow-matching loss and train step of the diffusion transformer."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from osjax.flow import path, shift
from osjax.models import velocity
from osjax.training import update
from osjax.training.optimizer import OptimizerConfig
from osjax.training.state import TrainState
from osjax.types import LatentBatch, Tree

BINS = 5  # of times, for the loss of each
Prepare = Callable[[Tree, jax.Array], LatentBatch]


def loss(
    module: nn.Module, params: velocity.Params, batch: LatentBatch, noise_BTHWC: jax.Array, t_B: jax.Array
) -> jax.Array:
    """Mean squared error of the velocity, float32 scalar, for given noise and times: the mean over `losses`.

    module, params, batch, noise_BTHWC, t_B: as `losses` takes them.
    """
    return losses(module, params, batch, noise_BTHWC, t_B).mean()


def losses(
    module: nn.Module,
    params: velocity.Params,
    batch: LatentBatch,
    noise_BTHWC: jax.Array,
    t_B: jax.Array,
    skip_given: bool = False,
) -> jax.Array:
    """Mean squared error of every clip's velocity, (B,) float32, for given noise and times.

    module: the velocity model, params: its parameters, which may be `Adapted`. batch: latents with text and condition.
    noise_BTHWC: of the latents' shape. t_B: times from 0, data, to 1, noise. skip_given: leave out lone given frames at
    a clip's ends, see `path.kept_frames`; the batch has a condition then.
    """
    x_t_BTHWC = path.interpolate(batch.latents_BTHWC, noise_BTHWC, t_B)
    target_BTHWC = path.velocity(batch.latents_BTHWC, noise_BTHWC)
    predicted_BNC = velocity.of_batch(module, params, batch._replace(latents_BTHWC=x_t_BTHWC), t_B)
    if skip_given:
        mask_BT = batch.cond_BTHWC[:, :, 0, 0, 0]
        return path.frame_skipping_sample_losses(predicted_BNC, module.pack(target_BTHWC), mask_BT)
    return path.sample_losses(predicted_BNC, module.pack(target_BTHWC))


def by_time(losses_B: jax.Array, t_B: jax.Array) -> update.Sums:
    """Sum and number of the losses in each of BINS equal parts of [0, 1], by names such as loss/t0.0-0.2.

    losses_B: of clips at the times t_B.
    """
    bin_B = jnp.clip((t_B * BINS).astype(jnp.int32), 0, BINS - 1)
    sums = {}
    for i in range(BINS):  # no scatter, which TPUs hand to another core
        here_B = bin_B == i
        name = f"loss/t{i / BINS:.1f}-{(i + 1) / BINS:.1f}"
        sums[name] = jnp.where(here_B, losses_B, 0.0).sum(), here_B.sum(dtype=jnp.float32)
    return sums


def make_loss(
    module: nn.Module, prepare: Prepare | None = None, skip_given: bool = False, alpha: float | None = None
) -> update.LossFn:
    """The training loss `(params, batch, key) -> (float32 scalar, its sums by time)`, for `update.apply`.

    It draws conditions, times and noise from the key. module: the velocity model. prepare(batch, key) -> LatentBatch:
    draws conditions and drops text, a `draw.Draw`; None takes the batch as it is. skip_given: as `losses` takes it.
    alpha: shift strength of the times that are drawn; None: what the latents' size and duration imply.
    """

    def loss_fn(params, batch, key):
        key_prepare, key_t, key_noise = jax.random.split(key, 3)
        batch = batch if prepare is None else prepare(batch, key_prepare)
        B, T, H, W, _ = batch.latents_BTHWC.shape
        t_B = path.draw_timesteps(key_t, B, alpha or shift.training_alpha(T, H, W))
        losses_B = losses(module, params, batch, path.draw_noise(key_noise, batch.latents_BTHWC), t_B, skip_given)
        return losses_B.mean(), by_time(losses_B, t_B)

    return loss_fn


def make_step(
    module: nn.Module,
    tx: optax.GradientTransformation,
    cfg: OptimizerConfig,
    prepare: Prepare | None = None,
    skip_given: bool = False,
    alpha: float | None = None,
) -> Callable[[TrainState, Tree, jax.Array], tuple[TrainState, dict[str, jax.Array]]]:
    """The pure step `(state, batch, run_key) -> (state, metrics)`; jit it with donation of the state.

    module, prepare, skip_given, alpha: see `make_loss`. tx: the update rule that cfg describes.
    metrics: see `update.apply`.
    All randomness comes from fold_in(run_key, state.step), so a resumed run draws what the first one would have.
    """
    loss_fn = make_loss(module, prepare, skip_given, alpha)

    def step(state, batch, run_key):
        return update.apply(state, batch, jax.random.fold_in(run_key, state.step), loss_fn, tx, cfg)

    return step


TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the evaluation


def make_evaluation(
    module: nn.Module, prepare: Prepare | None = None, times: tuple[float, ...] = TIMES
) -> Callable[[Tree, Tree, jax.Array], jax.Array]:
    """`(params, batch, key) -> losses (len(times),)`, with the same noise at every time: a fixed key, a fixed grid.

    module, prepare: see `make_loss`. times: from 0, data, to 1, noise.
    The training loss draws its times, so it shows little of a model's progress from one step to the next; this does.
    """

    def evaluate(params, batch, key):
        key_prepare, key_noise = jax.random.split(key)
        batch = batch if prepare is None else prepare(batch, key_prepare)
        noise = path.draw_noise(key_noise, batch.latents_BTHWC)
        B = noise.shape[0]
        return jax.lax.map(lambda t: loss(module, params, batch, noise, jnp.full(B, t, jnp.float32)), jnp.array(times))

    return evaluate
