"""One step of the adversarial phase, its losses and all gradients, against the original."""

import jax
import numpy as np
import optax
import pytest

from osjax import weights
from osjax.models import discriminator
from osjax.training import gan
from tests import golden
from tests.models import dcae_tiny, discriminator_weights, lpips_weights


def test_losses_weights_and_gradients_of_a_step_match_the_original():
    arrays, info = golden.read("vae_gan_step")
    tolerance = info["tolerance_relative"]
    autoencoder, params = dcae_tiny.load()
    critic, critic_params = discriminator_weights.load("manifest_discriminator_step")
    lpips, perceptual = lpips_weights.load()
    modules, plain = gan.Models(autoencoder, critic, lpips), optax.sgd(1.0)
    state = gan.create(params, critic_params, perceptual, plain, plain, with_ema=False)
    video = np.moveaxis(arrays["in.video"], 1, -1)
    cfg = gan.GanConfig(**{name: info["config"][name] for name in vars(gan.GanConfig()) if name in info["config"]})
    assert cfg == gan.GanConfig()  # the defaults are the original's settings

    step = jax.jit(lambda state: gan.gradients(modules, cfg, state, video, jax.random.key(0)))
    found = jax.device_get(step(state))

    values = video[0, 0].size
    got = {
        "nll_loss": found.losses["nll"],
        "recon_loss": found.losses["l1"] * values,
        "perceptual_loss": found.losses["lpips"] * values,
        "adaptive_weight": found.losses["adaptive_weight"],
        "weighted_generator_loss": found.losses["loss"] - found.losses["nll"],
        "total_generator_side_loss": found.losses["loss"],
        "discriminator_loss": found.losses["discriminator_loss"],
        "autoencoder_grad_total_l2": optax.global_norm(found.gradients),
    }
    for name, value in got.items():
        assert float(value) == pytest.approx(info[name], rel=tolerance), name
    # A mean of signed logits is judged by the largest of them.
    size = float(np.abs(arrays["fake_logits"]).max())
    assert float(found.losses["generator_loss"]) == pytest.approx(info["g_loss"], abs=tolerance * size)
    assert float(found.losses["logits_real"]) == pytest.approx(arrays["real_logits"].mean(), abs=tolerance * size)
    assert float(found.losses["logits_fake"]) == pytest.approx(arrays["fake_logits"].mean(), abs=tolerance * size)

    by_name = weights.to_torch(autoencoder.cfg, found.gradients)
    for name, norm in info["autoencoder_grad_l2"].items():
        assert np.linalg.norm(by_name[name]) == pytest.approx(norm, rel=tolerance), name
    whole = discriminator.merge(found.adversary_gradients, found.statistics)
    by_name = weights.to_torch(critic.cfg, whole)
    for name, norm in info["discriminator_grad_l2"].items():
        assert np.linalg.norm(by_name[name]) == pytest.approx(norm, rel=tolerance, abs=1e-7), name
    assert {int(t) for name, t in by_name.items() if name.endswith("num_batches_tracked")} == {3}  # judged three times
    last = info["autoencoder_grad_l2"][info["last_layer"]]
    assert abs(last - info["nll_grad_norm_last_layer"]) / last > tolerance  # the generator loss shows in the gradient
