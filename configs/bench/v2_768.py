"""Stage 3 of the released model: 11B, 129 frames of 768x768, on accelerators.

Command:   osjax bench --config=configs/bench/v2_768.py --blocks=fit --json=bench.json
Hardware:  as v2_256.py; the report splits a sequence over four H200: --config.mesh.sequence=4
"""

from ml_collections import ConfigDict

from osjax.configs.bench.options import released


def get_config() -> ConfigDict:
    return released(768, 129)
