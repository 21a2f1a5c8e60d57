"""The curriculum on 256 TPU v6e.

Command:   osjax train --config=configs/hardware/v6e_256.py --workdir=DIR --multihost
           with the data sets of configs/curriculum.py
Plan:      osjax plan --config=configs/hardware/v6e_256.py --target=v6e-256 (docs/plans/v6e-256.md)
"""

from ml_collections import ConfigDict

from osjax.configs.hardware import on


def get_config() -> ConfigDict:
    return on.devices(fsdp=32, sequence=4, remat="offload")
