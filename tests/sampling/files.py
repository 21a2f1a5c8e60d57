"""Tiny models as files with the original's names, and a config that samples from them."""

from safetensors.numpy import save_file

from osjax import models, weights
from tests.sampling import tiny

FLUX = {**tiny.DENOISER, "cond_embed": False, "guidance_embed": True}


def write(folder):
    """The folder's config.py, with the video model, an image model in FLUX's layout and their autoencoder."""
    for name, fields, layout in (("video", tiny.DENOISER, weights.OPEN_SORA_V2), ("image", FLUX, weights.FLUX)):
        cfg = models.config("mmdit", **fields)
        save_file(weights.to_torch(cfg, tiny.params(cfg), layout=layout), folder / f"{name}.safetensors")
    cfg = models.config("dcae", **tiny.AUTOENCODER)
    save_file(weights.to_torch(cfg, tiny.params(cfg)), folder / "autoencoder.safetensors")
    path = folder / "config.py"
    path.write_text(f"""
from ml_collections import ConfigDict
from osjax.configs.sample.options import options

def get_config():
    cfg = options()
    cfg.dtype = "float32"
    cfg.model.weights = {str(folder / "video.safetensors")!r}
    cfg.model.config = ConfigDict({tiny.DENOISER!r})
    cfg.image.model.weights = {str(folder / "image.safetensors")!r}
    cfg.image.model.config = ConfigDict({FLUX!r})
    for group in (cfg.autoencoder, cfg.image.autoencoder):
        group.weights = {str(folder / "autoencoder.safetensors")!r}
        group.config = ConfigDict({tiny.AUTOENCODER!r})
    cfg.text.update({tiny.TEXT!r})
    cfg.sample.update(dict(
        frames=8, height=32, width=32, steps=3, guidance=2.0, guidance_img=2.0, image_resolution="64px", image_steps=2
    ))
    return cfg
""")
    return path
