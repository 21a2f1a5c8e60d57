"""The curriculum on 64 TPU v5p.

Command:   osjax train --config=configs/hardware/v5p_128.py --workdir=DIR --multihost
           with the data sets of configs/curriculum.py
Plan:      osjax plan --config=configs/hardware/v5p_128.py --target=v5p-128 (docs/plans/v5p-128.md)
"""

from ml_collections import ConfigDict

from osjax.configs.hardware import on


def get_config() -> ConfigDict:
    return on.devices(fsdp=8, sequence=4, remat="save_attention", whole=(8, 5, 5))
