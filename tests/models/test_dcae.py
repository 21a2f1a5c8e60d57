"""What the DC-AE takes, refuses and promises, on models small enough to compile in a second."""

import dataclasses
from functools import cache

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from osjax import models
from osjax.errors import UserError
from osjax.models.autoencoder import LatentScale, Stride
from osjax.types import PARAMETER_AXES
from tests import golden
from tests.models.dcae_tiny import run
from tests.weights.test_dcae import IMAGE


def small(stages=2, depth_first=1, **changes):
    """A video model of residual blocks, 2x in time and 2x (two stages) or 4x in space."""
    side = {"width_list": [8] * stages, "depth_list": [depth_first] + [1] * (stages - 1), "block_type": "ResBlock"}
    temporal = [False] * (stages - 2) + [True, False]
    fields = {
        "latent_channels": 4,
        "time_compression_ratio": 2,
        "spatial_compression_ratio": 2 ** (stages - 1),
        "encoder": {**side, "temporal_downsample": temporal},
        "decoder": {**side, "temporal_upsample": temporal},
    }
    return models.config("dcae", **{**fields, **changes})


@cache
def initialised(cfg):
    """Model and unboxed parameters; norm scales are raised from near zero so that every branch counts."""
    params = jax.jit(lambda: nn.unbox(models.init_params(cfg, jax.random.key(0))))()
    params = jax.tree_util.tree_map_with_path(lambda p, v: v + 0.5 if p[-1].key == "scale" else v, params)
    return models.build(cfg), params


def video(T=4, H=4, W=8, batch=2):
    return jax.random.uniform(jax.random.key(7), (batch, T, H, W, 3), minval=-1.0, maxval=1.0)


@pytest.mark.parametrize("stages, depth_first, T", [(2, 1, 1), (2, 1, 4), (3, 0, 4)])
def test_shapes_follow_the_strides_also_without_blocks_in_the_first_stage(stages, depth_first, T):
    model, params = initialised(small(stages, depth_first))
    z = run(model, params, video(T), method="encode")
    space = model.stride.space
    assert z.shape == (2, *model.latent_shape(T, 4, 8), 4) == (2, max(T // 2, 1), 4 // space, 8 // space, 4)
    assert run(model, params, z, method="decode").shape == (2, T, 4, 8, 3)


def test_every_parameter_has_a_gradient_and_axis_names():
    cfg = small()
    boxed = models.abstract_params(cfg)
    for box in jax.tree.leaves(boxed, is_leaf=lambda b: isinstance(b, nn.meta.AxisMetadata)):
        assert len(box.names) == len(box.value.shape) and set(box.names) <= set(PARAMETER_AXES)
    model, params = initialised(cfg)
    gradients = jax.jit(jax.grad(lambda p: jnp.abs(model.apply({"params": p}, video()) - video()).mean()))(params)
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(gradients))


def test_remat_changes_neither_numbers_nor_parameters():
    model, params = initialised(small())
    frugal = model.clone(remat=True)

    def gradients(model):
        return jax.jit(jax.grad(lambda p: jnp.square(model.apply({"params": p}, video())).mean()))(params)

    chex.assert_trees_all_close(gradients(frugal), gradients(model), rtol=1e-3, atol=1e-6)
    text = str(jax.make_jaxpr(lambda p: frugal.apply({"params": p}, video()))(params))
    assert "checkpoint" in text or "remat" in text


def test_bfloat16_computes_close_to_float32_and_returns_float32():
    model, params = initialised(small())
    half = model.clone(dtype=jnp.bfloat16)
    want, got = (run(m, params, video(), method="__call__") for m in (model, half))
    assert got.dtype == jnp.float32
    assert 1e-5 < golden.relative_error(got, want) < 0.1


def test_an_image_model_takes_every_frame_by_itself():
    model, params = initialised(models.config("dcae", **IMAGE))
    x = video(T=3, H=4, W=8)
    z = run(model, params, x, method="encode")
    assert z.shape == (2, 3, 1, 2, 8)
    alone = run(model, params, x[:, 1:2], method="encode")
    np.testing.assert_allclose(z[:, 1:2], alone, atol=1e-5)
    assert golden.relative_error(z[:, :1], alone) > 1e-3
    assert run(model, params, z, method="decode").shape == x.shape


def test_the_scaling_factor_divides_latents_and_leaves_reconstructions_alone():
    model, params = initialised(small())
    scaled = model.clone(cfg=dataclasses.replace(model.cfg, scaling_factor=0.25))
    z, z_scaled = (run(m, params, video(), method="encode") for m in (model, scaled))
    np.testing.assert_allclose(z_scaled, z * 4, rtol=1e-5, atol=1e-6)
    x, x_scaled = (run(m, params, video(), method="__call__") for m in (model, scaled))
    np.testing.assert_allclose(x_scaled, x, atol=1e-5)


def test_latent_scale_restores_what_it_normalises():
    scale, z = LatentScale(0.5, 0.1), np.linspace(-2, 2, 7)
    np.testing.assert_allclose(scale.normalise(z), 0.5 * (z - 0.1))
    np.testing.assert_allclose(scale.restore(scale.normalise(z)), z)
    assert np.abs(scale.normalise(z) - z).max() > 0.1


@pytest.mark.parametrize(
    "size, message",
    [
        ((5, 8, 12), "5 frames .* stride 2.* nearest valid number is [46]"),
        ((4, 9, 12), "height 9 .* stride 4.* nearest valid height is 8"),
        ((4, 8, 3), "width 3 .* stride 4.* nearest valid width is 4"),
    ],
)
def test_sizes_that_the_stride_does_not_divide_are_refused_with_the_nearest(size, message):
    model = models.build(small(stages=3))
    with pytest.raises(UserError, match=message):
        model.latent_shape(*size)
    with pytest.raises(UserError, match=message):
        model.init(jax.random.key(0), jnp.zeros((1, *size, 3)))


def test_causal_videos_have_one_frame_more():
    stride = Stride(4, 8, causal=True)
    assert stride.latent_shape(33, 16, 24) == (9, 2, 3)
    assert stride.pixel_shape(9, 2, 3) == (33, 16, 24)
    with pytest.raises(UserError, match="32 frames .* one more than a multiple of 4: the nearest valid number is 33"):
        stride.latent_shape(32, 16, 24)


def test_unknown_keys_raise_type_error_at_every_level():
    for fields in ({"latent_chanels": 8}, {"encoder": {"widths": [8]}}, {"tiling": {"tile": 8}}):
        with pytest.raises(TypeError, match="unexpected keyword"):
            models.config("dcae", **fields)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"spatial_compression_ratio": 16}, "compress 4x in time and 32x in space, the config says 4x and 16x"),
        ({"encoder": {"width_list": [8, 8]}}, "encoder.depth_list has 6 entries for 2 stages"),
        ({"encoder": {"depth_list": [1, 0, 1, 1, 1, 1]}}, "only the first stage may have depth 0"),
        ({"decoder": {"width_list": [8, 8, 8, 8, 8, 8]}}, "attention needs a multiple of 32"),
        ({"decoder": {"out_act": "tanh"}}, "decoder.out_act is 'tanh': choose one of"),
        ({"encoder": {"downsample_block_type": "ConvPixelUnshuffle"}}, "downsample_block_type"),
        ({"encoder": {"double_latent": True}}, "double_latent must be False"),
        (
            {"decoder": {"width_list": [128, 320, 512, 512, 1024, 1024]}},
            "decoder.width_list has 128 at stage 0 and 320 behind it, whose shortcut needs a divisor of 512",
        ),
        ({"latent_channels": 96}, "encoder.width_list ends with 1024, .* multiple of the 96 latent channels"),
    ],
)
def test_configs_that_cannot_work_say_why(fields, message):
    with pytest.raises(UserError, match=message):
        models.config("dcae", **fields)
