"""The autoencoder step: its losses, random frames and cuts, and that it learns."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from osjax.errors import UserError
from osjax.parallel import rules, sharding
from osjax.parallel.host import to_global
from osjax.training import ae_losses, autoencoder, optimizer
from osjax.types import VideoBatch
from tests.training import tiny

PLAIN = optimizer.OptimizerConfig(lr=1e-2, eps=1e-8)
VIDEO = np.random.default_rng(0).uniform(-1, 1, (4, 2, 6, 8, 3)).astype(np.float32)


class Scale(nn.Module):
    """The least module that reconstructs: x -> x * w. Its loss is known."""

    @nn.compact
    def __call__(self, x_BTHWC):
        return x_BTHWC * self.param("w", nn.initializers.constant(0.5), ())


def metrics_of(video=VIDEO, **settings):
    tx = optimizer.make(PLAIN)
    step = autoencoder.make_step(Scale(), tx, PLAIN, autoencoder.AutoencoderLosses(**settings))
    state = autoencoder.create(lambda: {"w": jnp.array(0.5)}, tx, with_ema=False)
    return jax.jit(step)(state, VideoBatch(video), jax.random.key(0))


def test_losses_are_means_over_every_pixel_value():
    l1, mse = np.abs(VIDEO).mean() / 2, np.square(VIDEO).mean() / 4
    assert float(metrics_of()[1]["loss"]) == pytest.approx(l1, rel=1e-5)
    assert float(metrics_of(mse_weight=3.0)[1]["loss"]) == pytest.approx(l1 + 3 * mse, rel=1e-5)
    assert float(ae_losses.mse(VIDEO / 2, VIDEO)) == pytest.approx(mse, rel=1e-5)
    assert float(ae_losses.l1(VIDEO, VIDEO)) == 0


def test_the_edge_loss_is_the_error_of_differences_between_neighbours_and_knows_no_brightness():
    down, across = np.abs(np.diff(VIDEO / 2, axis=2)).mean(), np.abs(np.diff(VIDEO / 2, axis=3)).mean()
    assert float(ae_losses.edges(VIDEO / 2, VIDEO)) == pytest.approx((down + across) / 2, rel=1e-5)
    assert float(ae_losses.edges(VIDEO + 0.5, VIDEO)) < 1e-6 < float(ae_losses.l1(VIDEO + 0.5, VIDEO))
    state, metrics = metrics_of(edge_weight=2.0)
    assert float(metrics["loss"]) == pytest.approx(float(metrics["l1"] + 2 * metrics["edges"]), rel=1e-5)


def test_losses_are_float32_for_bfloat16_reconstructions():
    low = jnp.asarray(VIDEO, jnp.bfloat16)
    assert ae_losses.l1(low, VIDEO).dtype == ae_losses.mse(low, VIDEO).dtype == jnp.float32


def test_the_image_loss_is_that_of_one_frame_of_each_clip():
    whole = float(metrics_of()[1]["loss"])
    extra = (float(metrics_of(image_weight=2.0)[1]["loss"]) - whole) / 2
    frames = [np.abs(VIDEO[:, n]).mean() / 2 for n in range(2)]
    assert min(abs(extra - f) for f in frames) < 1e-5 < abs(frames[0] - frames[1])


def test_a_cut_is_a_square_of_the_clip_and_a_cut_too_large_is_refused():
    whole, cut = (float(metrics_of(crop=side)[1]["loss"]) for side in (0, 4))
    cuts = [np.abs(VIDEO[:, :, t : t + 4, s : s + 4]).mean() / 2 for t in range(3) for s in range(5)]
    assert min(abs(cut - c) for c in cuts) < 1e-5 and cut != pytest.approx(whole, rel=1e-4)
    with pytest.raises(UserError, match="crop of 8 does not fit clips of 6x8: use at most 6"):
        metrics_of(crop=8)


def test_a_negative_weight_or_cut_is_refused():
    assert autoencoder.AutoencoderLosses(mse_weight=0.5, crop=4).crop == 4
    for name in ("perceptual_weight", "crop"):
        with pytest.raises(UserError, match=f"losses.{name} is -1: give 0 or more"):
            autoencoder.AutoencoderLosses(**{name: -1})


def test_steps_on_a_mesh_bring_the_scale_to_one():
    mesh = tiny.mesh_of(2, 2, 1, 1)
    tx = optimizer.make(PLAIN)

    def init():
        return autoencoder.create(lambda: {"w": jnp.array(0.5)}, tx, with_ema=False)

    fresh = sharding.Init(init, mesh, rules=rules.AUTOENCODER)
    step = sharding.jit_step(autoencoder.make_step(Scale(), tx, PLAIN), fresh.shardings, mesh, rules.AUTOENCODER)
    state = fresh.make()
    for _ in range(80):
        state, metrics = step(state, to_global(VideoBatch(VIDEO), mesh), tiny.run_key(mesh))
    assert abs(float(state.params["w"]) - 1) < 0.05 and float(metrics["loss"]) < 0.05
