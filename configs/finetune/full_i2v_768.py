"""The whole released model at 768px, text and image to video.

Command:   osjax finetune CLIPS --config=configs/finetune/full_i2v_768.py --weights=ckpts
Hardware:  devices that hold 14 bytes a parameter together: two of 141 GB, say; never measured
Steps:     1000, for about 20 to 200 clips; --config.steps=4000 for 2,000
"""

from ml_collections import ConfigDict

from osjax.configs.diffusion import stage3_i2v_768
from osjax.configs.finetune import tuned


def get_config() -> ConfigDict:
    cfg = tuned.few_clips(stage3_i2v_768.stage(), "768px", frames=129)
    return tuned.full("full_i2v_768", cfg)
