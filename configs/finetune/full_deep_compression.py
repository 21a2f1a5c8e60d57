"""The whole released deep-compression model at 768px, text and image to video.

Command:   osjax finetune CLIPS --config=configs/finetune/full_deep_compression.py --weights=ckpts
Hardware:  devices that hold 14 bytes a parameter together: two of 141 GB, say; never measured
Steps:     1000, for about 20 to 200 clips; --config.steps=4000 for 2,000
"""

from ml_collections import ConfigDict

from osjax.configs.diffusion import deep_compression
from osjax.configs.finetune import tuned


def get_config() -> ConfigDict:
    cfg = tuned.few_clips(deep_compression.stage(1000, ()), "768px", frames=128)
    cfg.start.weights = "ckpts/Open_Sora_v2_Video_DC_AE.safetensors"
    return tuned.full("full_deep_compression", cfg)
