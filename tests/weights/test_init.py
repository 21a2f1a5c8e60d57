"""One model as the start of another: FLUX of the video model, Open-Sora v2 of the deep-compression model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from osjax import models, weights
from osjax.errors import UserError
from osjax.weights import init
from tests import golden
from tests.models.test_mmdit import config, tensors

T, H, W, M = 1, 4, 6, 5  # tokens of one image and of its prompt


def params_of(found):
    return found.tree()


def flux(guidance=True):
    """FLUX weights; without guidance its embedding adds nothing, as if the model were not distilled."""
    given = tensors("mmdit_b")
    if not guidance:
        for part in ("weight", "bias"):
            given[f"guidance_in.out_layer.{part}"] = np.zeros_like(given[f"guidance_in.out_layer.{part}"])
    return given


def video_config():
    return dataclasses.replace(config("mmdit_b"), guidance_embed=False, cond_embed=True)


def image(cfg):
    keys = iter(jax.random.split(jax.random.key(3), 9))

    def normal(*shape):
        return jax.random.normal(next(keys), shape)

    grid = jnp.asarray(np.indices((T, H, W)).reshape(1, 3, -1).transpose(0, 2, 1), jnp.float32)
    img, txt = normal(1, T * H * W, cfg.in_channels), normal(1, M, cfg.context_in_dim)
    return (img, grid, txt, jnp.zeros((1, M, 3)), jnp.array([0.4]), normal(1, cfg.vec_in_dim)), normal(
        1, T * H * W, cfg.cond_channels
    )


def test_the_video_model_started_from_flux_gives_flux_s_output_for_an_image():
    cfg = config("mmdit_b")
    inputs, cond = image(cfg)
    guidance = jnp.array([4.0])
    started = {}
    for layout in (weights.FLUX, weights.Layout(fused_qkv=True, interleaved_rope=False)):
        source = weights.torch_leaves(cfg, flux(), layout=layout)
        started[layout] = params_of(init.from_model(video_config(), source))
    video = jax.jit(models.build(video_config()).apply)
    out = {layout: video({"params": p}, *inputs, cond=cond) for layout, p in started.items()}

    image_apply = jax.jit(models.build(cfg).apply)

    def image_model(guided):
        params = weights.from_torch(cfg, flux(guided), layout=weights.FLUX)
        return image_apply({"params": params}, *inputs, guidance=guidance)

    want = image_model(guided=False)
    assert golden.relative_error(out[weights.FLUX], want) < 1e-6
    wrong_rotation = weights.Layout(fused_qkv=True, interleaved_rope=False)
    assert golden.relative_error(out[wrong_rotation], want) > 1e-3
    assert golden.relative_error(image_model(guided=True), want) > 1e-3  # what the dropped embedding did


def test_flux_leaves_out_guidance_and_adds_a_condition_of_zeros():
    given = weights.torch_leaves(config("mmdit_b"), flux(), layout=weights.FLUX)
    found = init.from_model(video_config(), given)
    assert found.shapes == weights.leaf_shapes(video_config())
    params = params_of(found)
    assert not params["cond_in"]["kernel"].any() and not params["cond_in"]["bias"].any()
    source = params_of(given)
    assert source["guidance_in"] and "guidance_in" not in params
    for path, value in flatten_dict(params).items():
        if path[0] != "cond_in":
            np.testing.assert_array_equal(value, flatten_dict(source)[path])


def test_open_sora_v2_starts_the_deep_compression_model_with_new_ends():
    v2 = config("mmdit_a")
    deep = dataclasses.replace(v2, in_channels=128, patch_size=1)
    source = weights.torch_leaves(v2, tensors("mmdit_a"))
    params = params_of(init.from_model(deep, source, seed=1))
    again, other = (params_of(init.from_model(deep, source, seed=seed)) for seed in (1, 2))
    fresh = {("img_in", "kernel"), ("img_in", "bias")}
    zero = {("cond_in", "kernel"), ("cond_in", "bias"), ("final_layer", "linear", "kernel")}
    zero |= {("final_layer", "linear", "bias")}
    flat, given = flatten_dict(params), flatten_dict(params_of(source))
    for path, value in flat.items():
        if path in zero:
            assert not value.any(), path
        elif path not in fresh:
            np.testing.assert_array_equal(value, given[path], err_msg="/".join(path))
    kernel = params["img_in"]["kernel"]
    assert kernel.shape == (128, deep.hidden_size) and 0.5 < kernel.std() / np.sqrt(2 / sum(kernel.shape)) < 2
    assert not params["img_in"]["bias"].any()
    np.testing.assert_array_equal(kernel, again["img_in"]["kernel"])
    assert not np.array_equal(kernel, other["img_in"]["kernel"])


def test_models_that_differ_inside_are_refused():
    source = weights.torch_leaves(config("mmdit_b"), flux(), layout=weights.FLUX)
    with pytest.raises(UserError, match="cannot start from the other.*single_blocks"):
        init.from_model(dataclasses.replace(video_config(), depth_single_blocks=2), source)
