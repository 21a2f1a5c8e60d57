"""The FLUX image autoencoder against arrays of the original."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from osjax import models, weights
from osjax.errors import UserError
from tests import golden


def channels_last(x_BCTHW):
    return np.moveaxis(x_BCTHW, 1, -1)


@pytest.fixture(scope="module")
def image_model():
    """(module, params, arrays, settings)."""
    arrays, settings = golden.read("ae2d")
    cfg = models.config("flux_ae", **settings["config"])
    tensors = {n: golden.generate(n, s) for n, s in weights.torch_shapes(cfg).items()}
    return models.build(cfg), weights.from_torch(cfg, tensors), arrays, settings


def test_moments_latents_samples_and_pixels_match_the_original(image_model):
    module, params, arrays, settings = image_model
    run = jax.jit(module.apply, static_argnames="method")
    images, tolerance = channels_last(arrays["in.image"]), settings["tolerance_relative"]

    def error(got, name):
        return golden.relative_error(got, channels_last(arrays[name]))

    assert error(run({"params": params}, images, method="moments"), "moments") < tolerance
    latent = run({"params": params}, images, method="encode")
    assert error(latent, "latent_mode") < tolerance < error(latent, "latent_sampled")
    sampled = run({"params": params}, images, channels_last(arrays["in.noise"]), method="encode")
    assert error(sampled, "latent_sampled") < tolerance
    decoded = run({"params": params}, latent, method="decode")
    assert decoded.shape == images.shape
    # The reconstruction was made from one of the two latents.
    from_sample = run({"params": params}, sampled, method="decode")
    assert min(error(decoded, "reconstruction"), error(from_sample, "reconstruction")) < tolerance


def test_frames_are_images_of_their_own(image_model):
    module, params, arrays, _ = image_model
    images = channels_last(arrays["in.image"])
    both = module.apply({"params": params}, images, method="encode")
    one = module.apply({"params": params}, images[:, 1:], method="encode")
    assert np.allclose(both[:, 1:], one, atol=1e-5) and not np.allclose(both[:, :1], one, atol=1e-2)


@pytest.mark.parametrize(("manifest", "fields"), [("ae2d_tiny", {}), ("ae2d_tiny16", {})])
def test_names_and_shapes_of_small_models_are_the_originals(manifest, fields):
    known = golden.read_json(f"manifest_{manifest}")
    cfg = models.config("flux_ae", **known["config"], **fields)
    assert weights.torch_shapes(cfg) == {n: tuple(e["shape"]) for n, e in known["state_dict"].items()}


def test_full_size_names_and_shapes_are_those_of_the_original():
    manifest = golden.read_json("full_autoencoder_2d")
    assert weights.torch_shapes(models.config("flux_ae")) == {n: tuple(s) for n, s in manifest["tensors"].items()}
    leaves = jax.tree.leaves(models.abstract_params(models.config("flux_ae")))
    assert sum(leaf.size for leaf in leaves) == manifest["parameters"]


def test_export_gives_back_the_bytes_of_the_file(image_model):
    module, params, *_ = image_model
    back = weights.to_torch(module.cfg, params)
    assert all(tensor.tobytes() == golden.generate(n, tensor.shape).tobytes() for n, tensor in back.items())
    assert back.keys() == golden.read_json("manifest_ae2d_tiny")["state_dict"].keys()


def test_sizes_that_do_not_fit_are_refused(image_model):
    module, params, *_ = image_model
    with pytest.raises(UserError, match="height 30 is not a multiple"):
        module.apply({"params": params}, jnp.zeros((1, 1, 30, 32, 3)), method="encode")
    with pytest.raises(UserError, match="use a multiple of 32"):
        models.config("flux_ae", ch=48)
