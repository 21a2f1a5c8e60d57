"""The DC-AE against arrays from the original."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from osjax import models, weights
from osjax.ops.resample import duplicate_up
from tests import golden
from tests.models import dcae_tiny
from tests.models.dcae_tiny import channels_last, run


def assert_matches(got_BTHWC, want_BCTHW, tolerance):
    assert golden.relative_error(got_BTHWC, channels_last(want_BCTHW)) < tolerance


def test_encode_and_decode_match_golden_after_every_stage():
    arrays, info = golden.read("dcae_forward")
    model, params = dcae_tiny.load()
    tolerance = info["tolerance_relative"]

    @jax.jit
    def watched(params, x):
        return model.apply({"params": params}, x, capture_intermediates=True, mutable=["intermediates"])

    reconstruction, watch = watched(params, channels_last(arrays["in.video"]))
    assert_matches(reconstruction, arrays["reconstruction"], tolerance)
    stages = {"enc": watch["intermediates"]["encoder"], "dec": watch["intermediates"]["decoder"]}
    latent = stages["enc"]["__call__"][0]
    names = [name for name in arrays if name.startswith("act.")]
    assert len(names) == 14
    for name in names:
        _, side, where = name.split(".")
        value = stages[side][where]["__call__"][0]
        if name == "act.dec.project_in":
            value = value + duplicate_up(latent, value.shape[-1], (1, 1, 1))  # added behind the convolution
        strides = np.array(info["subsampled"].get(name, {}).get("strides", [1] * 5))[[0, 2, 3, 4, 1]]
        sampled = value[tuple(slice(None, None, s) for s in strides)]
        assert_matches(sampled, arrays[name], tolerance)

    latent = run(model, params, channels_last(arrays["in.video"]), method="encode")
    assert_matches(latent, arrays["latent"], tolerance)
    assert golden.relative_error(-latent, channels_last(arrays["latent"])) > 1  # the measure sees a wrong latent


@pytest.mark.long
def test_other_frame_counts_and_the_scaling_factor_match_golden():
    arrays, info = golden.read("dcae_frames_scaling")
    tolerance = info["tolerance_relative"]
    for case in info["cases"]:
        name, factor = case["case"], case["scaling_factor"]
        if name == "zero":
            continue
        model, params = dcae_tiny.load(scaling_factor=factor)
        latent = run(model, params, channels_last(arrays[f"{name}.in.video"]), method="encode")
        assert_matches(latent, arrays[f"{name}.latent"], tolerance)
        decoded = run(model, params, latent, method="decode")
        assert_matches(decoded, arrays[f"{name}.reconstruction"], tolerance)
        assert decoded.shape[1:4] == model.stride.pixel_shape(*latent.shape[1:4])
        if factor:
            assert golden.relative_error(latent * factor, channels_last(arrays[f"{name}.latent"])) > 0.1


def test_zero_input_matches_golden_and_so_do_the_norm_epsilons():
    arrays, info = golden.read("dcae_frames_scaling")
    model, params = dcae_tiny.load()
    latent = run(model, params, np.zeros((1, 1, 32, 32, 3), np.float32), method="encode")
    assert_matches(latent, arrays["zero.latent"], info["tolerance_relative"])
    decoded = run(model, params, np.zeros((1, 1, 1, 1, 16), np.float32), method="decode")
    assert_matches(decoded, arrays["zero.reconstruction_of_zero_latent"], info["tolerance_relative"])
    assert golden.relative_error(decoded + 0.01, channels_last(arrays["zero.reconstruction_of_zero_latent"])) > 1e-3


def test_l1_loss_and_all_its_gradients_match_golden():
    arrays, info = golden.read("dcae_l1_gradients")
    model, params = dcae_tiny.load()
    video, target = (channels_last(arrays[name]) for name in ("in.video", "in.target"))

    def loss(params, video):
        return jnp.abs(model.apply({"params": params}, video) - target).mean()

    value, (by_params, by_video) = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(params, video)
    np.testing.assert_allclose(value, info["loss"], rtol=info["tolerance_relative"])
    assert_matches(by_video, arrays["grad_video"], info["tolerance_relative"])
    gradients = weights.to_torch(model.cfg, by_params)
    assert set(gradients) == set(info["param_grad_l2"])
    for name, want in info["param_grad_l2"].items():
        np.testing.assert_allclose(np.linalg.norm(gradients[name]), want, rtol=info["tolerance_relative"], err_msg=name)
    assert abs(float(np.linalg.norm(by_video)) / float(np.linalg.norm(video)) - 1) > 0.1  # gradient is not the video


@pytest.mark.long
def test_full_width_matches_golden():
    arrays, info = golden.read("dcae_full_width")
    model, params = dcae_tiny.load("manifest_dcae_full")
    assert model.cfg == models.config("dcae")
    params = jax.tree.map(jnp.asarray, params)
    latent = run(model, params, channels_last(arrays["t8.in.video"]), method="encode")
    assert_matches(latent, arrays["t8.latent"], info["tolerance_relative"])
    decoded = run(model, params, latent, method="decode")
    assert_matches(decoded, arrays["t8.reconstruction"], info["tolerance_relative"])
    assert golden.relative_error(decoded[:, ::-1], channels_last(arrays["t8.reconstruction"])) > 0.1
