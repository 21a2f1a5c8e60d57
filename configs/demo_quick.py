"""The demo for a first look: fewer and smaller clips, fewer updates; colour and direction come out, shape in part.

Command:   osjax demo --quick
Hardware:  2 CPU cores, 2 GB
Time:      3.4 minutes by the clock, 5.4 of processor time, on two cores of an EPYC beside other work
Expected:  colour 100 %, direction 96 %, background 90 %, motion in order 100 %, shape 73 %, of 48 samples of one run
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
