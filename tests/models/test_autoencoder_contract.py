"""What every autoencoder promises, family by family."""

from dataclasses import replace
from functools import reduce
from operator import getitem

import flax.linen as nn
import jax
import numpy as np
import pytest

from osjax import models
from osjax.models.autoencoder import LatentScale
from tests import golden

SMALL = {
    "dcae": golden.read_json("manifest_dcae_tiny")["config"],
    "hunyuan": {"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4, "latent_channels": 4},
    "flux_ae": {"ch": 32, "ch_mult": (1, 1), "z_channels": 4},
}


@pytest.mark.parametrize("family", models.AUTOENCODERS)
def test_the_last_layer_is_the_one_kernel_whose_change_is_linear_in_pixels(family):
    cfg = models.config(family, **SMALL[family])
    module = models.build(cfg)
    params = nn.unbox(models.init_params(cfg, jax.random.key(0)))
    T, H, W = module.latent_shape(1, 2 * module.stride.space, module.stride.space)
    z = jax.random.normal(jax.random.key(1), (1, T, H, W, cfg.latent_channels))

    decode = jax.jit(lambda params, z: module.apply({"params": params}, z, method="decode"))

    def pixels(factor, path):
        """Pixels with the kernel at `path` multiplied, all biases being zero."""
        here, leaf = reduce(getitem, path[:-1], params), path[-1]
        kernel, here[leaf] = here[leaf], here[leaf] * factor
        made = np.asarray(decode(params, z))
        here[leaf] = kernel
        return made

    once, twice = pixels(1, module.last_layer), pixels(2, module.last_layer)
    assert module.last_layer[0] == "decoder" and np.abs(once).max() > 0
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-5, atol=1e-6)
    first = [*module.last_layer]
    first[1] = {"project_out": "project_in", "conv_out": "conv_in"}[first[1]]
    assert np.abs(pixels(2, first) - 2 * once).max() > 0.01 * np.abs(once).max()


def test_the_last_layer_of_a_decoder_without_blocks_in_its_first_stage_is_found():
    released = models.config("dcae")
    decoder = replace(released.decoder, depth_list=(0, 3, 3, 3, 3, 3))
    cfg = replace(released, decoder=decoder)
    params = models.abstract_params(cfg)
    assert reduce(getitem, models.build(cfg).last_layer, params).value.shape[-1] == 3
    with pytest.raises(KeyError):
        reduce(getitem, models.build(released).last_layer, params)


@pytest.mark.parametrize("family", models.AUTOENCODERS)
def test_latents_normalised_with_the_implied_fields_are_normal(family):
    cfg = models.config(family)
    module = models.build(cfg)
    assert all(getattr(module, name) == getattr(cfg, name) for name in ("latent_scale", "stride", "tiling"))
    z = 3 * np.random.default_rng(0).standard_normal(10_000) + (0 if family == "dcae" else 0.5)
    latents = cfg.latent_scale.normalise(z)
    fitted = replace(cfg, **cfg.scale_fields(cfg.latent_scale.corrected(latents.mean(), latents.std())))
    normal = fitted.latent_scale.normalise(z)
    assert abs(normal.mean()) < 0.02 and abs(normal.std() - 1) < 1e-3
    assert abs(latents.std() - 1) > 0.01


def test_a_scale_of_channels_is_corrected_as_one_number():
    scale = LatentScale(np.array([1.0, 3.0]), np.array([0.0, 1.0])).corrected(1.0, 2.0)
    assert (scale.scale, scale.shift) == (1.0, 1.0)
