"""Samples from what `osjax demo` trained, at its own size: 8 frames of 80x80 pixels.

Command:   osjax sample --prompt "a red circle moves left over a cold striped background" --output=my_samples
Hardware:  1 CPU core, 2 GB
Time:      some seconds for the first video, about one for each after it
"""

from ml_collections import ConfigDict

from osjax.configs.sample.options import options


def get_config() -> ConfigDict:
    cfg = options()
    cfg.workdir = "runs/demo"
    return cfg
