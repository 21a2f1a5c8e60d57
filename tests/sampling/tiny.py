"""The smallest models that sample: a Video DC-AE of stride 4x8x8, an MMDiT, the built-in text encoder."""

import functools

import jax
import numpy as np
from flax import linen as nn

from osjax import models
from osjax.conditioning.text import TextEncoder
from osjax.sampling.autoencoder import Autoencoder
from osjax.sampling.pipeline import Pipeline, SampleSettings

STAGES = {"width_list": (8, 8, 16, 32), "block_type": "ResBlock"}
AUTOENCODER = {
    "latent_channels": 8,
    "spatial_compression_ratio": 8,
    "encoder": {**STAGES, "depth_list": (0, 1, 1, 1), "temporal_downsample": (False, True, True, False)},
    "decoder": {**STAGES, "depth_list": (0, 1, 1, 1), "temporal_upsample": (False, True, True, False)},
}
DENOISER = {
    "in_channels": 8,
    "vec_in_dim": 16,
    "context_in_dim": 16,
    "hidden_size": 32,
    "num_heads": 2,
    "depth": 1,
    "depth_single_blocks": 1,
    "axes_dim": (4, 6, 6),
    "patch_size": 1,
}
TEXT = {"width": 16, "max_length": 4}
SETTINGS = SampleSettings(frames=8, height=32, width=32, steps=3, guidance=2.0, guidance_img=2.0)


@functools.cache
def params(config):
    """Random values of a size that keeps signals alive; drawn by numpy, as compiling initialisers takes long."""
    rng = np.random.RandomState(0)

    def draw(leaf):
        scale = 1 / np.sqrt(np.prod(leaf.shape[:-1])) if len(leaf.shape) > 1 else 0.1
        return (rng.standard_normal(leaf.shape) * scale).astype(np.float32)

    return jax.tree.map(draw, nn.unbox(models.abstract_params(config)))


@functools.cache
def autoencoder():
    cfg = models.config("dcae", **AUTOENCODER)
    return Autoencoder(models.build(cfg), params(cfg))


def parts(denoiser=()):
    cfg = models.config("mmdit", **{**DENOISER, **dict(denoiser)})
    return models.build(cfg), params(cfg), TextEncoder(**TEXT)


def pipeline(denoiser=(), **options):
    module, weights, text = parts(denoiser)
    return Pipeline(module, weights, autoencoder(), text, **{"settings": SETTINGS, **options})
