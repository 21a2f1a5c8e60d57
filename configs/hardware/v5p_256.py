"""The curriculum on 128 TPU v5p.

Command:   osjax train --config=configs/hardware/v5p_256.py --workdir=DIR --multihost
           with the data sets of configs/curriculum.py
Plan:      osjax plan --config=configs/hardware/v5p_256.py --target=v5p-256 (docs/plans/v5p-256.md)
"""

from ml_collections import ConfigDict

from osjax.configs.hardware import on


def get_config() -> ConfigDict:
    return on.devices(fsdp=8, sequence=4, remat="save_attention", whole=(8, 5, 5))
