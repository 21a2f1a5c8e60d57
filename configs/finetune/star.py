"""Adapters of what `osjax demo` trained, on clips of a shape that it never saw: a stage more in the demo's own folder.

Command:   python -c "from osjax.data import star; star.write('stars')" && osjax data build stars/clips.csv stars_set
           osjax train --config=configs/finetune/star.py --workdir=runs/demo --config.stages.star.data.source=DATA_SET
           osjax sample --workdir=runs/demo --prompt "a yellow star moves up over a warm striped background"
Hardware:  2 CPU cores, 3 GB; it was never run
"""

from ml_collections import ConfigDict
from osjax.configs import demo


def get_config() -> ConfigDict:
    cfg = demo.get_config()
    star = demo.stage("80px", 300, 1e-3, start="stage3_i2v_high")
    star.lora.update(rank=16, alpha=16.0, targets=("*_blocks/*attn/qkv", "*_blocks/*proj", "*_blocks/*mlp*"))
    star.optimizer.update(name="adamw", warmup_steps=20, decay_steps=0)
    star.data.fill = True
    cfg.stages.star = star
    cfg.order = (*cfg.order, "star")
    return cfg
