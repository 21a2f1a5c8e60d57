"""The curriculum on 64 H200.

Command:   osjax train --config=configs/hardware/h200_64.py --workdir=DIR --multihost
           with the data sets of configs/curriculum.py
Plan:      osjax plan --config=configs/hardware/h200_64.py --target=h200x64 (docs/plans/h200x64.md)
"""

from ml_collections import ConfigDict

from osjax.configs.hardware import on


def get_config() -> ConfigDict:
    return on.devices(fsdp=8, sequence=4, remat="save_attention", whole=(15, 11, 11))
