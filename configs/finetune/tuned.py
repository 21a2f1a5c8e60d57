"""What the fine-tuning configs share: the released model on a few clips of one's own, on any number of devices."""

from ml_collections import ConfigDict

from osjax.configs import base


def few_clips(cfg: ConfigDict, resolution: str, frames: int) -> ConfigDict:
    """A released stage that goes on with the released weights.

    Buckets are chosen from the clips, batches filled by repeating them, one clip in twenty is kept for evaluation, and
    clips are encoded once, to disk. resolution: such as 256px. frames: of the longest clips to train on.
    """
    cfg.steps = 1000
    cfg.start.stage = None
    cfg.start.weights = "ckpts/Open_Sora_v2.safetensors"
    cfg.start.config = ConfigDict()
    cfg.mesh.update(data=-1, fsdp=8, sequence=1, tensor=1, fit=True)
    cfg.model.attention = "auto"
    cfg.model.remat = "full"
    cfg.model.remat_blocks = None
    cfg.data.buckets = ()
    cfg.data.choose.update(resolution=resolution, frames=frames)
    cfg.data.fill = True
    cfg.data.cached = cfg.data.cached_text = True
    cfg.data.held_out_share = 0.05
    cfg.data.threads = 2
    cfg.evaluate.every = 100
    cfg.checkpoint.update(every=250, keep_every=0)
    cfg.optimizer.update(schedule="cosine", warmup_steps=20, milestones=(), decay_steps=0, final_lr_ratio=0.1)
    cfg.sample = ConfigDict({"resolution": resolution, "aspect_ratio": "16:9", "frames": frames, "fps": 24})
    return cfg


def lora(name: str, cfg: ConfigDict, rank: int = 16, lr: float = 1e-4) -> ConfigDict:
    """A run that trains adapters beside the model, which stays in bfloat16."""
    cfg.lora.update(rank=rank, alpha=float(rank), base_dtype="bfloat16")
    cfg.optimizer.lr = lr
    return base.single(name, cfg)


def full(name: str, cfg: ConfigDict, lr: float = 1e-5) -> ConfigDict:
    """A run that trains the whole model."""
    cfg.optimizer.lr = lr
    cfg.optimizer.moment_dtype = "bfloat16"
    return base.single(name, cfg)
