"""Stage 2 of Open-Sora 2.0: text and image to video at 256px.

Command:   osjax train --config=configs/diffusion/stage2_i2v_256.py --config.data.source=DIR \\
               --config.start.weights=runs/stage1_t2v_256/stage1_t2v_256/checkpoints --multihost
Hardware:  the report's run took 192 H200 for 2 days (384 GPU-days, 18.4 k$)
Expected:  13,000 steps

Source: report sections 4.2 and 5.1, Table 2; Open-Sora configs/diffusion/train/stage1_i2v.py. The report's learning
rates cover 85,000 steps, which are stage 1 alone; the 1e-5 of this stage is the repository's. Both drop the image for
one clip in eight.
"""

from ml_collections import ConfigDict

from osjax.configs import base
from osjax.configs.diffusion import released, stage1_t2v_256


def get_config() -> ConfigDict:
    cfg = base.single("stage2_i2v_256", stage())
    cfg.start.weights = "runs/stage1_t2v_256/stage1_t2v_256/checkpoints"
    return cfg


def stage() -> ConfigDict:
    cfg = released.stage(steps=13_000, lr=1e-5)
    cfg.model.remat_blocks = (8, 100)
    cfg.data.buckets = stage1_t2v_256.VIDEOS + stage1_t2v_256.IMAGES
    cfg.modes = ConfigDict({"t2v": 1.0, "i2v_head": 5.0, "i2v_loop": 1.0, "i2v_tail": 1.0})
    return cfg
