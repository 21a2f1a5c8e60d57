"""The whole curriculum of Open-Sora 2.0 as one run: 256px T2V, 256px T/I2V, 768px T/I2V, deep-compression latents.

Command:   osjax train --config=configs/curriculum.py --workdir=DIR --multihost \\
               --config.stages.stage1_t2v_256.data.source=DIR70M ...  (one data set a stage; --dry-run names what lacks)
Hardware:  the report's three stages took 4160 H200-days, 199.6 k$
Expected:  each stage starts from the last one's weights, and is skipped once it is finished
"""

from ml_collections import ConfigDict

from osjax.configs import base
from osjax.configs.diffusion import deep_compression, stage1_t2v_256, stage2_i2v_256, stage3_i2v_768


def get_config() -> ConfigDict:
    stage1, stage2, stage3 = stage1_t2v_256.stage(), stage2_i2v_256.stage(), stage3_i2v_768.stage()
    stage2.start.stage = "stage1_t2v_256"
    stage3.start.stage = "stage2_i2v_256"
    stages = {"stage1_t2v_256": stage1, "stage2_i2v_256": stage2, "stage3_i2v_768": stage3}
    return base.curriculum("curriculum", stages | deep_compression.stages("stage3_i2v_768"))
