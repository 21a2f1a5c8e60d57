"""What a sampling config is made of; every key is a field of `SamplingKeys` in osjax/parts/sampling.py."""

from ml_collections import ConfigDict

from osjax.parts import sampling
from osjax.parts.autoencoder import AutoencoderKeys
from osjax.parts.groups import group


def options() -> ConfigDict:
    """Nothing chosen yet: name a workdir, or weight files."""
    return sampling.keys()


def released(resolution: str, frames: int) -> ConfigDict:
    """The released Open-Sora v2 with the HunyuanVideo autoencoder, its files in `ckpts/`."""
    cfg = options()
    cfg.model.weights = "ckpts/Open_Sora_v2.safetensors"
    cfg.model.config.time_dtype = "bfloat16"  # as it was trained
    cfg.autoencoder = autoencoder("hunyuan")
    cfg.autoencoder.weights = "ckpts/hunyuan_vae.safetensors"
    cfg.autoencoder.dtype = "bfloat16"  # as the original samples
    cfg.autoencoder.config.use_spatial_tiling = True  # so, too
    cfg.text.t5 = "ckpts/google/t5-v1_1-xxl"
    cfg.text.clip = "ckpts/openai/clip-vit-large-patch14"
    cfg.sample.resolution = resolution
    cfg.sample.aspect_ratio = "16:9"
    cfg.sample.frames = frames
    cfg.sample.fps = 24
    cfg.sample.caption_form, cfg.sample.state_fps, cfg.sample.motion_score = "original", True, 4
    return cfg


def autoencoder(family: str) -> ConfigDict:
    """An autoencoder of a family: hunyuan, dcae or flux_ae."""
    return group(AutoencoderKeys, family=family)
