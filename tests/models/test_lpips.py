"""LPIPS against arrays of the original."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from osjax import models, weights
from osjax.errors import UserError
from tests import golden
from tests.models import lpips_weights

NARROW = models.config("lpips", chns=(4, 4, 8, 8, 8))


@partial(jax.jit, static_argnums=0)
def distance(module, params, a, b):
    return module.apply({"params": params}, a, b)


def as_frames(images_BCHW):
    return np.moveaxis(images_BCHW, 1, -1)[:, None]


@pytest.fixture(scope="module")
def original():
    """(module, params, first images, second images, arrays, settings)."""
    arrays, settings = golden.read("lpips")
    module, params = lpips_weights.load()
    return module, params, as_frames(arrays["in.image0"]), as_frames(arrays["in.image1"]), arrays, settings


@pytest.fixture(scope="module")
def narrow():
    """(module, params) of few channels."""
    shapes = weights.torch_shapes(NARROW)
    return models.build(NARROW), weights.from_torch(NARROW, {n: golden.generate(n, s, 1.5) for n, s in shapes.items()})


def test_distances_their_layers_and_the_gradient_match_the_original(original):
    module, params, a, b, arrays, settings = original
    tolerance = settings["tolerance_relative"]

    @jax.jit
    def run(params, a, b):
        terms = module.apply({"params": params}, a, b, method="layers")
        return terms, jax.grad(lambda b: module.apply({"params": params}, a, b).sum())(b)

    terms, gradient = run(params, a, b)
    want = np.array(settings["per_layer"])
    for layer in range(5):
        assert golden.relative_error(terms[:, 0, layer], want[layer]) < tolerance
    assert golden.relative_error(terms.sum(-1).reshape(3, 1, 1, 1), arrays["distance"]) < tolerance
    # ReLUs at rounding distance from zero (2e-8, of values about 1) fall on a side that is up to the machine, and each
    # reaches some hundred pixels. All others must agree.
    errors = np.abs(gradient - as_frames(arrays["grad_image1"])) / np.abs(arrays["grad_image1"]).max()
    assert np.quantile(errors, 0.85) < tolerance and errors.max() < 0.05
    # The measure sees two images exchanged within the batch.
    swapped, _ = run(params, a[::-1], b)
    assert golden.relative_error(swapped.sum(-1).reshape(3, 1, 1, 1), arrays["distance"]) > 0.1


def test_frames_are_compared_one_by_one_and_an_image_with_itself_is_at_zero(narrow):
    module, params = narrow
    a, b = np.random.default_rng(0).uniform(-1, 1, (2, 2, 3, 17, 20, 3)).astype(np.float32)
    whole = distance(module, params, a, b)
    assert whole.shape == (2, 3)
    one = distance(module, params, a[1:, 2:], b[1:, 2:])
    np.testing.assert_allclose(one, whole[1:, 2:], rtol=1e-5)
    assert float(abs(one[0, 0] - whole[0, 0])) > 1e-3
    assert np.abs(distance(module, params, a, a)).max() < 1e-12


def test_levels_recomputed_in_the_backward_pass_give_the_same_gradient(narrow):
    module, params = narrow
    a, b = np.random.default_rng(0).uniform(-1, 1, (2, 1, 1, 16, 16, 3)).astype(np.float32)

    def gradient(module):
        return jax.jit(jax.grad(lambda b: module.apply({"params": params}, a, b).sum()))(b)

    plain, recomputed = gradient(module), gradient(module.clone(remat=True))
    np.testing.assert_allclose(plain, recomputed, atol=1e-6)
    assert np.abs(plain).max() > 1e-4


def test_pixels_without_any_feature_give_a_finite_gradient(narrow):
    module, params = narrow
    dead = jax.tree.map(lambda x: x, params)
    dead["level2"]["conv0"] = {
        "kernel": np.zeros_like(params["level2"]["conv0"]["kernel"]),
        "bias": np.full_like(params["level2"]["conv0"]["bias"], -1),
    }
    a, b = np.random.default_rng(0).uniform(-1, 1, (2, 1, 1, 16, 16, 3)).astype(np.float32)
    gradient = jax.jit(jax.grad(lambda b: module.apply({"params": dead}, a, b).sum()))(b)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_distances_are_float32_for_features_in_bfloat16(narrow):
    module, params = narrow
    a, b = np.random.default_rng(0).uniform(-1, 1, (2, 1, 2, 16, 16, 3)).astype(np.float32)
    low = distance(module.clone(dtype=jnp.bfloat16), params, a, b)
    exact = distance(module, params, a, b)
    assert low.dtype == jnp.float32 and 0 < golden.relative_error(low, exact) < 0.1


def test_images_that_are_too_small_and_wrong_levels_are_refused(narrow):
    module, params = narrow
    small = jnp.zeros((1, 1, 15, 32, 3))
    with pytest.raises(UserError, match="LPIPS of 15x32 pixels: it needs 16 or more"):
        module.apply({"params": params}, small, small)
    with pytest.raises(UserError, match="give one for each of the 5 levels"):
        models.config("lpips", chns=(1, 2))
