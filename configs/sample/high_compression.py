"""The deep-compression model: Video DC-AE latents, 768px image to video, a tenth of the time of t2v_768.py.

Command:   osjax sample --config=configs/sample/high_compression.py --mode=i2v_head --ref=first.png --prompt "a train"
Hardware:  as t2v_256.py
Files:     in ckpts/: Open_Sora_v2_Video_DC_AE.safetensors, F32T4C128_AE.safetensors, and the text encoders
"""

from ml_collections import ConfigDict

from osjax.configs.sample.options import autoencoder, released


def get_config() -> ConfigDict:
    cfg = released("768px", frames=128)
    cfg.model.weights = "ckpts/Open_Sora_v2_Video_DC_AE.safetensors"
    cfg.model.config = ConfigDict({"in_channels": 128, "patch_size": 1, "time_dtype": "bfloat16"})
    cfg.autoencoder = autoencoder("dcae")
    cfg.autoencoder.dtype = "bfloat16"
    cfg.autoencoder.weights = "ckpts/F32T4C128_AE.safetensors"
    cfg.autoencoder.config = ConfigDict({"tiling": {"use_spatial_tiling": True, "use_temporal_tiling": True}})
    cfg.sample.put_back = True  # given latents replace what was sampled in their place, as in the original
    return cfg
