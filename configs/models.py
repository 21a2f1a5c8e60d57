"""The released models at full size, by the names that `osjax convert --model=NAME` takes.

Command:   osjax convert Open_Sora_v2.safetensors checkpoints/open_sora_v2 --model=open_sora_v2
Hardware:  1 CPU core, 3 GB, disk for the result; no accelerator
Time:      about two minutes for the 11B model

A file of your own with such groups gives your own models a name: --config=my_models.py --model=mine.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    cfg = ConfigDict()
    cfg.open_sora_v2 = model("mmdit", layout="open_sora_v2")
    cfg.high_compression = model("mmdit", {"in_channels": 128, "patch_size": 1}, layout="open_sora_v2")
    cfg.flux_dev = model("mmdit", {"guidance_embed": True, "cond_embed": False}, layout="flux")
    cfg.dc_ae_f32t4c128 = model("dcae")
    cfg.hunyuan_vae = model("hunyuan")
    cfg.flux_ae = model("flux_ae")
    cfg.t5_xxl = model("t5")
    cfg.clip_l = model("clip_text")
    cfg.lpips = model("lpips")
    return cfg


def model(family: str, config: dict | None = None, layout: str = "") -> ConfigDict:
    """config: keys of the family's configuration; those left out have the released model's values.

    layout: of attention weights in files with published names: open_sora_v2, flux or flux_diffusers; empty for families
    with one.
    """
    return ConfigDict({"family": family, "config": config or {}, "layout": layout})
