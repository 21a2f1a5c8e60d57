"""Stage 1 of Open-Sora 2.0: text to video at 256px, from FLUX.1-dev.

Command:   osjax train --config=configs/diffusion/stage1_t2v_256.py --config.data.source=DIR --multihost
Hardware:  the report's run took 224 H200 for 10 days (2240 GPU-days, 107.5 k$)
Expected:  85,000 steps; a flow loss near 0.1 at its end

Source: report sections 4.1-4.2, Table 2, Appendix D; Open-Sora configs/diffusion/train/stage1.py. They agree on
buckets and batches. Learning rate: the report lowers it to 3e-5 after 40,000 steps, the repository does not; ours is
the report's.
"""

from ml_collections import ConfigDict

from osjax.configs import base
from osjax.configs.diffusion import released

VIDEOS = released.rows("256px", 1.0, released.CAUSAL_FRAMES, {33: 12, 65: 6, 97: 4, 129: 3})
IMAGES = (("256px", 1, 1.0, 45), ("768px", 1, 0.5, 13), ("1024px", 1, 0.5, 7))


def get_config() -> ConfigDict:
    return base.single("stage1_t2v_256", stage())


def stage() -> ConfigDict:
    cfg = released.stage(steps=85_000, lr=5e-5)
    cfg.optimizer.schedule = "step"
    cfg.optimizer.milestones = ((40_000, 3e-5),)
    cfg.model.cond_embed = False
    cfg.model.remat_blocks = (8, 100)  # the report's: 8 double blocks and all single ones
    cfg.data.buckets = VIDEOS + IMAGES
    cfg.start.weights = "ckpts/flux1-dev.safetensors"
    cfg.start.layout = "flux"
    cfg.start.config = ConfigDict({"guidance_embed": True})
    return cfg
