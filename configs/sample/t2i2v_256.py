"""FLUX.1-dev makes the first frame, Open-Sora v2 the video: the original's default way, at 256px.

Command:   osjax sample --config=configs/sample/t2i2v_256.py --prompt "raining, sea"
Hardware:  as t2v_256.py; FLUX is loaded first and freed before the video model comes
Files:     those of t2v_256.py, and flux1-dev.safetensors, flux1-dev-ae.safetensors
"""

from ml_collections import ConfigDict

from osjax.configs.sample.options import autoencoder, released


def get_config() -> ConfigDict:
    cfg = released("256px", frames=129)
    cfg.sample.mode = "t2i2v"
    cfg.sample.image_resolution = "768px"
    cfg.image.model.weights = "ckpts/flux1-dev.safetensors"
    cfg.image.model.config = ConfigDict({"guidance_embed": True, "cond_embed": False})
    cfg.image.autoencoder = autoencoder("flux_ae")
    cfg.image.autoencoder.dtype = "bfloat16"
    cfg.image.autoencoder.weights = "ckpts/flux1-dev-ae.safetensors"
    return cfg
