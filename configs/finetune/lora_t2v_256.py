"""Adapters of the released model at 256px, text to video.

Command:   osjax finetune CLIPS --config=configs/finetune/lora_t2v_256.py --weights=ckpts
Hardware:  one of 40 GB, or of 24 GB with lora.base_dtype=int8, by compiled programs (docs/finetune.md); never run
Steps:     1000, for about 20 to 200 clips; --config.steps=4000 for 2,000
"""

from ml_collections import ConfigDict

from osjax.configs.diffusion import stage2_i2v_256
from osjax.configs.finetune import tuned


def get_config() -> ConfigDict:
    cfg = tuned.few_clips(stage2_i2v_256.stage(), "256px", frames=129)
    cfg.modes = ConfigDict({"t2v": 1.0})
    return tuned.lora("lora_t2v_256", cfg)
