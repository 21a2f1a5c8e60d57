"""The demo for a first look: fewer clips and updates, colour and direction only.

Command:   osjax demo --quick
Hardware:  2 CPU cores, 6 GB
Time:      three minutes
"""

from ml_collections import ConfigDict
from osjax.configs import demo


def get_config() -> ConfigDict:
    cfg = demo.of_steps(autoencoder=130, t2v_low=540, i2v_low=25, i2v_high=50, side=64)
    cfg.workdir = "runs/demo_quick"
    cfg.clips.train = 768
    cfg.clips.held_out = 48
    cfg.report.prompts = 16
    cfg.report.i2v = 8
    return cfg
