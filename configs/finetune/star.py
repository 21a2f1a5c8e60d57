"""Adapters of what `osjax demo` trained, on clips of a shape that it never saw: docs/finetune.md says what came of it.

Command:   python -c "from osjax.data import star; star.write('runs/stars')"
           osjax finetune runs/stars/clips.csv --config=configs/finetune/star.py
           osjax sample --workdir=runs/star --prompt "a red star moves left over a warm plain background"
Hardware:  2 CPU cores, 3 GB
Time:      2 to 4 minutes of processor time on a machine that others used
"""

from ml_collections import ConfigDict

from osjax.configs import base, demo

DEMO = "runs/demo"  # the folder that `osjax demo` leaves


def get_config() -> ConfigDict:
    star = demo.stage("80px", 400, 3e-3)
    star.start.update(stage=None, weights=f"{DEMO}/stage3_i2v_high/checkpoints")
    star.autoencoder.update(stage=None, family="dcae", weights=f"{DEMO}/autoencoder/checkpoints")
    star.autoencoder.config = demo.autoencoder_model()
    star.lora.update(rank=16, alpha=16.0, targets=("*_blocks/*attn/qkv", "*_blocks/*proj", "*_blocks/*mlp*"))
    star.optimizer.update(name="adamw", warmup_steps=20, decay_steps=0)
    star.data.fill = True
    return base.single("star", star)
