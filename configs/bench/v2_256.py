"""Stage 1 and 2 of the released model: 11B, 129 frames of 256x256, on accelerators.

Command:   osjax bench --config=configs/bench/v2_256.py --blocks=fit --json=bench.json
Hardware:  any number of GPUs or TPUs; `--blocks=fit` takes as many blocks as the memory of one device holds
"""

from ml_collections import ConfigDict

from osjax.configs.bench.options import released


def get_config() -> ConfigDict:
    cfg = released(256, 129)
    cfg.train_batch = 3  # the report's, of one H200
    return cfg
