"""The curriculum on 192 H200.

Command:   osjax train --config=configs/hardware/h200_192.py --workdir=DIR --multihost
           with the data sets of configs/curriculum.py
Plan:      osjax plan --config=configs/hardware/h200_192.py --target=h200x192 (docs/plans/h200x192.md)
"""

from ml_collections import ConfigDict

from osjax.configs.hardware import on


def get_config() -> ConfigDict:
    return on.devices(fsdp=8, sequence=4, remat="save_attention", whole=(15, 11, 11))
