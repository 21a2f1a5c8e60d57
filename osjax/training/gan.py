"""The adversarial phase of an autoencoder: two models, two optimisers, one pure step.

The autoencoder lowers L1 + LPIPS and fools a patch discriminator, which learns beside it to tell clips from their
reconstructions. The generator loss is weighted so that it pulls on the decoder's last layer as the reconstruction does.

Source: Open-Sora 2.0 report, section 4.4, and scripts/vae/train.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct

from osjax.errors import UserError
from osjax.models import discriminator
from osjax.training import ae_losses, autoencoder, update
from osjax.training.autoencoder import AutoencoderState
from osjax.training.freeze import Freeze
from osjax.training.optimizer import OptimizerConfig, learning_rate
from osjax.training.state import EVERYTHING
from osjax.types import Tree, VideoBatch


@dataclass(frozen=True)
class GanConfig:
    """Weights of the losses; defaults are the report's and, where it is silent, the original's.

    perceptual_loss_weight, mse_weight: of LPIPS and of the squared error beside L1. logvar: log variance of a pixel
    value, constant. disc_weight: times the adaptive weight. disc_factor: of both adversarial losses. gen_start,
    disc_start: updates before the one and the other count. disc_loss_type: hinge, vanilla or wgan-gp. lecam_weight: of
    the regulariser of the discriminator that compares its logits with their averages (`lecam_decay` per update); 0
    leaves it out, as the original does.
    """

    perceptual_loss_weight: float = 0.5
    mse_weight: float = 0.0
    logvar: float = 0.0
    disc_weight: float = 0.05
    disc_factor: float = 1.0
    gen_start: int = 0
    disc_start: int = 0
    disc_loss_type: str = "hinge"
    lecam_weight: float = 0.0
    lecam_decay: float = 0.99

    def __post_init__(self):
        if self.disc_loss_type not in ae_losses.DISCRIMINATOR:
            known = ", ".join(ae_losses.DISCRIMINATOR)
            raise UserError(f"disc_loss_type {self.disc_loss_type!r} is unknown: use one of {known}")
        if self.disc_factor <= 0 or self.disc_weight <= 0:
            raise UserError(
                f"disc_weight {self.disc_weight} and disc_factor {self.disc_factor} must be positive: "
                "without a discriminator train in the reconstruction phase"
            )


class Adversary(struct.PyTreeNode):
    """The discriminator in training. params: its trainable part. statistics: of its batch norms.

    logit_means: moving averages (2,) of the mean logits of real and reconstructed clips.
    """

    params: Tree
    statistics: Tree
    opt_state: Tree
    logit_means: jax.Array


class GanState(AutoencoderState):
    """The autoencoder's state with its adversary."""

    adversary: Adversary | None = None


class Models(NamedTuple):
    """The modules: autoencoder (its call reconstructs), discriminator and, where its weight is not 0, LPIPS."""

    autoencoder: nn.Module
    discriminator: nn.Module
    lpips: nn.Module | None = None


class BatchResult(NamedTuple):
    """The result of a batch: gradients of both models, what the adversary keeps of it, and losses by name.

    gradients: of all parameters of the autoencoder. adversary_gradients: of `Adversary.params`. statistics,
    logit_means: as in `Adversary`, after the batch. losses: scalars, loss and discriminator_loss among them.
    """

    gradients: Tree
    adversary_gradients: Tree
    statistics: Tree
    logit_means: jax.Array
    losses: dict[str, jax.Array]


def create(
    params: Tree,
    discriminator_params: Tree,
    perceptual: Tree,
    tx: optax.GradientTransformation,
    disc_tx: optax.GradientTransformation,
    with_ema: bool,
    freeze: Freeze = EVERYTHING,
) -> GanState:
    """The phase's first state, from an autoencoder that reconstructs already. Trace it; boxes pass through.

    params: the parameters of the autoencoder. discriminator_params: the whole tree of the
    discriminator. perceptual: the parameters of LPIPS, or None. tx, disc_tx: the update rules of the two.
    with_ema: whether an average of the autoencoder is kept. freeze: its parameters that stay.
    """
    trainable, statistics = discriminator.split(discriminator_params)
    adversary = Adversary(trainable, statistics, disc_tx.init(trainable), jnp.zeros(2))
    start = autoencoder.create(lambda: params, tx, with_ema, freeze, perceptual)
    return GanState(**vars(start), adversary=adversary)


def make_step(
    modules: Models,
    tx: optax.GradientTransformation,
    disc_tx: optax.GradientTransformation,
    gan: GanConfig,
    cfg: OptimizerConfig,
    disc_cfg: OptimizerConfig,
    crop: int = 0,
) -> Callable[[GanState, VideoBatch, jax.Array], tuple[GanState, dict[str, jax.Array]]]:
    """The pure step `(state, batch, run_key) -> (state, metrics)`; clips of one frame, images, are batches as well.

    modules: the networks, gan: their losses. tx, disc_tx: the update rules that cfg and disc_cfg describe; the average
    is kept of the autoencoder alone. metrics: those of `update.apply` for the autoencoder, its losses by name, and
    discriminator_loss, discriminator_grad_norm, discriminator_lr among them. crop: side in pixels of a square
    cut at random from the clips; 0 takes them whole. An update of which anything is not finite leaves both models as
    they are. UserError where the two disagree on `accumulate`.
    """
    if disc_cfg.accumulate != cfg.accumulate or disc_cfg.ema_decay:
        raise UserError(
            f"the discriminator's accumulate {disc_cfg.accumulate} must be the autoencoder's, {cfg.accumulate}, "
            f"and its ema_decay {disc_cfg.ema_decay} must be 0: no average is kept of it"
        )

    def step(state: GanState, batch: VideoBatch, run_key: jax.Array):
        key = jax.random.fold_in(run_key, state.step)
        video = autoencoder.random_crop(batch.video_BTHWC, crop, jax.random.fold_in(key, CROP))
        result = _in_parts(modules, gan, state, video, key, cfg.accumulate)
        return _updated(state, result, tx, disc_tx, cfg, disc_cfg)

    return step


def gradients(modules: Models, gan: GanConfig, state: GanState, video_BTHWC: jax.Array, key: jax.Array) -> BatchResult:
    """Losses and gradients of one batch, which changes nothing in the state.

    modules: the networks, gan: their losses. video_BTHWC: pixels in [-1, 1]. key: of the dropout.
    The discriminator judges three times, as in the original: the reconstruction for the autoencoder, then the clips and
    the reconstruction for itself, each time normalising by what it sees and updating its running statistics.
    """
    adversary, keys = state.adversary, jax.random.split(key, 3)

    def judge(params, statistics, clips_BTHWC, key):
        variables = {"params": discriminator.merge(params, statistics)}
        logits, after = modules.discriminator.apply(
            variables, clips_BTHWC, train=True, rngs={"dropout": key}, mutable=["batch_stats"]
        )
        return logits, after["batch_stats"]

    def reconstruction_loss(rebuilt):
        l1, distance = ae_losses.l1(rebuilt, video_BTHWC), jnp.zeros(())
        if gan.perceptual_loss_weight:
            distance = modules.lpips.apply({"params": state.perceptual}, video_BTHWC, rebuilt).mean()
        error = l1 + gan.mse_weight * ae_losses.mse(rebuilt, video_BTHWC)
        values = ae_losses.values_per_frame(video_BTHWC)
        nll = ae_losses.nll(error, distance, values, gan.perceptual_loss_weight, gan.logvar)
        return nll, {"nll": nll, "l1": l1, "lpips": distance}

    def generator_loss(rebuilt):
        logits, statistics = judge(adversary.params, adversary.statistics, rebuilt, keys[0])
        return ae_losses.generator(logits), statistics

    rebuilt, pull = jax.vjp(lambda p: modules.autoencoder.apply({"params": p}, video_BTHWC), state.params)
    (nll, losses), by_nll = jax.value_and_grad(reconstruction_loss, has_aux=True)(rebuilt)
    (generator, statistics), by_generator = jax.value_and_grad(generator_loss, has_aux=True)(rebuilt)

    # Pulling back is linear: once for the weighted sum. For the weight only the last layer is needed, and the compiler
    # drops the way to all others.
    path = modules.autoencoder.last_layer
    last = [reduce(getitem, path, pull(cotangent)[0]) for cotangent in (by_nll, by_generator)]
    weight = ae_losses.adaptive_weight(*last) * gan.disc_weight
    pulls = weight * gan.disc_factor * ae_losses.from_step(gan.gen_start, state.step)
    (by_params,) = pull(by_nll + pulls * by_generator)

    def adversary_loss(params):
        real, after_real = judge(params, statistics, video_BTHWC, keys[1])
        fake, after_fake = judge(params, after_real, jax.lax.stop_gradient(rebuilt), keys[2])
        means = jnp.stack([real.mean(), fake.mean()])
        loss = ae_losses.DISCRIMINATOR[gan.disc_loss_type](real, fake)
        if gan.lecam_weight:
            loss += gan.lecam_weight * ae_losses.lecam(*means, *adversary.logit_means)
        return loss * gan.disc_factor * ae_losses.from_step(gan.disc_start, state.step), (after_fake, means)

    adversary_grad = jax.value_and_grad(adversary_loss, has_aux=True)
    (adversarial, (statistics, means)), by_adversary = adversary_grad(adversary.params)
    losses |= {
        "loss": nll + pulls * generator,
        "generator_loss": generator,
        "adaptive_weight": weight,
        "discriminator_loss": adversarial,
        "logits_real": means[0],
        "logits_fake": means[1],
    }
    logit_means = gan.lecam_decay * adversary.logit_means + (1 - gan.lecam_decay) * means
    return BatchResult(by_params, by_adversary, statistics, jax.lax.stop_gradient(logit_means), losses)


CROP = 3  # which of a step's keys draws the cut; the judgements have the first three


def _in_parts(
    modules: Models, gan: GanConfig, state: GanState, video_BTHWC: jax.Array, key: jax.Array, accumulate: int
) -> BatchResult:
    """`gradients` over parts of the batch; the adversary's statistics go from part to part."""

    def of_part(kept, video_BTHWC, key):
        now = state.replace(adversary=state.adversary.replace(statistics=kept[0], logit_means=kept[1]))
        result = gradients(modules, gan, now, video_BTHWC, key)
        mean = (result.gradients, result.adversary_gradients, result.losses)
        return mean, (), (result.statistics, result.logit_means)

    kept = state.adversary.statistics, state.adversary.logit_means
    (by_params, by_adversary, losses), _, kept = update.over_parts(of_part, kept, video_BTHWC, key, accumulate)
    return BatchResult(by_params, by_adversary, *kept, losses)


def _updated(
    state: GanState,
    result: BatchResult,
    tx: optax.GradientTransformation,
    disc_tx: optax.GradientTransformation,
    cfg: OptimizerConfig,
    disc_cfg: OptimizerConfig,
) -> tuple[GanState, dict[str, jax.Array]]:
    """The next state, or the old one with another skipped update where a loss or gradient is not finite."""
    grads, critic = cfg.freeze.trained(result.gradients), state.adversary
    disc_norm = optax.global_norm(result.adversary_gradients)
    losses = result.losses["loss"], result.losses["discriminator_loss"]
    good = update.finite(*losses, optax.global_norm(grads), disc_norm)
    after, metrics = update.advance(state, grads, good, tx, cfg)
    updates, opt_state = disc_tx.update(result.adversary_gradients, critic.opt_state, critic.params)
    params = optax.apply_updates(critic.params, updates)
    adversary = Adversary(params, result.statistics, opt_state, result.logit_means)
    disc_lr = learning_rate(disc_cfg)(state.step - state.skipped)
    metrics |= {"discriminator_grad_norm": disc_norm, "discriminator_lr": jnp.asarray(disc_lr)}
    return after.replace(adversary=update.choose(good, adversary, critic)), {**result.losses, **metrics}
