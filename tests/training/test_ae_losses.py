"""Losses of the adversarial phase against numbers of the original."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from osjax.training import ae_losses
from tests import golden
from tests.models import lpips_weights


def channels_last(x_BCTHW):
    return np.moveaxis(x_BCTHW, 1, -1)


def test_discriminator_losses_and_their_starts_match_the_original():
    arrays, info = golden.read("gan_losses")
    real, fake = arrays["in.real_logits"], arrays["in.fake_logits"]
    cases = info["discriminator_loss"]
    assert {case["type"] for case in cases} == set(ae_losses.DISCRIMINATOR)
    for case in cases:
        loss = ae_losses.DISCRIMINATOR[case["type"]](real, fake)
        counted = loss * case["disc_factor"] * ae_losses.from_step(case["disc_start"], jnp.int32(case["global_step"]))
        assert float(counted) == pytest.approx(case["loss"], rel=info["tolerance_relative"], abs=1e-7)
    # Telling real from fake is not symmetric, so logits exchanged show.
    exchanged = {kind: float(loss(fake, real)) for kind, loss in ae_losses.DISCRIMINATOR.items()}
    assert all(abs(exchanged[c["type"]] - c["loss"]) > 0.1 for c in cases if c["disc_start"] == 0)


def test_the_lecam_regulariser_matches_the_original():
    arrays, info = golden.read("gan_losses")
    real, fake = (jnp.mean(arrays[f"in.{kind}_logits"]) for kind in ("real", "fake"))
    got = ae_losses.lecam(real, fake, jnp.float32(0.3), jnp.float32(-0.2))
    assert float(got) == pytest.approx(info["lecam"], rel=info["tolerance_relative"])
    assert float(ae_losses.lecam(real, fake, jnp.float32(-0.2), jnp.float32(0.3))) < 0.01


def test_the_likelihood_matches_the_original():
    arrays, info = golden.read("vae_loss_kl")
    cfg, tolerance = info["config"], info["tolerance_relative"]
    module, params = lpips_weights.load()
    video, rebuilt = channels_last(arrays["in.video"]), channels_last(arrays["reconstruction"])
    l1, values = ae_losses.l1(rebuilt, video), ae_losses.values_per_frame(video)
    distance = jax.jit(module.apply)({"params": params}, video, rebuilt).mean()
    assert float(l1) * values == pytest.approx(info["recon_loss"], rel=tolerance)
    assert float(distance) * values == pytest.approx(info["perceptual_loss"], rel=tolerance)
    nll = ae_losses.nll(l1, distance, values, cfg["perceptual_loss_weight"], cfg["logvar"])
    assert float(nll) == pytest.approx(info["nll_loss"], rel=tolerance)
    without = ae_losses.nll(l1, distance, values, cfg["perceptual_loss_weight"])
    assert float(without) != pytest.approx(info["nll_loss"], rel=0.1)


def test_the_adaptive_weight_is_bounded_and_has_no_gradient():
    one = jnp.ones((3, 3))
    assert float(ae_losses.adaptive_weight(6 * one, 2 * one)) == pytest.approx(3, rel=1e-4)
    assert float(ae_losses.adaptive_weight(one, 0 * one)) == 1e4
    assert float(ae_losses.adaptive_weight(0 * one, one)) == 0
    assert not np.any(jax.grad(lambda g: ae_losses.adaptive_weight(g, one))(2 * one))
