"""Adapters of the released model at 768px, text to video.

Command:   osjax finetune CLIPS --config=configs/finetune/lora_t2v_768.py --weights=ckpts
Hardware:  one of 80 GB at 129 frames, by compiled programs (docs/finetune.md); never run
Steps:     1000, for about 20 to 200 clips; --config.steps=4000 for 2,000
"""

from ml_collections import ConfigDict

from osjax.configs.diffusion import stage3_i2v_768
from osjax.configs.finetune import tuned


def get_config() -> ConfigDict:
    cfg = tuned.few_clips(stage3_i2v_768.stage(), "768px", frames=129)
    cfg.modes = ConfigDict({"t2v": 1.0})
    return tuned.lora("lora_t2v_768", cfg)
