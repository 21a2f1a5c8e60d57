"""What the stages of the released model share: its files, its size, and how frames make rows of buckets."""

from collections.abc import Mapping

from ml_collections import ConfigDict

from osjax.configs import base

# Latent frames stand for four pixel frames, after one that stands alone: 5, 9, ... 129.
CAUSAL_FRAMES = range(5, 130, 4)


def stage(steps: int, lr: float) -> ConfigDict:
    """The 11B model in bfloat16 on HunyuanVideo latents, with T5 and CLIP; files as the original's download has them.

    No moving average: the report speaks of none, and the original's configs turn it off.
    """
    cfg = base.diffusion()
    cfg.steps = steps
    cfg.optimizer.lr = lr
    cfg.mesh.fsdp = 8  # weights, gradients and Adam in float32 take 22 GB a device
    cfg.model.attention = "flash"
    cfg.model.time_dtype = "bfloat16"  # as the original trains
    cfg.model.remat = "save_attention"  # of each block its input and what attention gave
    cfg.autoencoder.family = "hunyuan"
    cfg.autoencoder.weights = "ckpts/hunyuan_vae.safetensors"
    cfg.autoencoder.config = ConfigDict({"use_spatial_tiling": True})  # as the original
    cfg.autoencoder.dtype = "bfloat16"  # as the original
    cfg.autoencoder.at_once = 1
    cfg.text.t5 = "ckpts/google/t5-v1_1-xxl"
    cfg.text.clip = "ckpts/openai/clip-vit-large-patch14"
    cfg.data.batch_per_device = True  # as the report counts: of a GPU, or of a group that shares a sequence
    cfg.data.threads = 16
    cfg.data.state_fps = cfg.data.state_motion = True  # as the original's captions do
    cfg.checkpoint.every = 500
    cfg.checkpoint.keep_every = 5000
    cfg.health.spike_factor = 3.0
    cfg.hang.factor = 20.0
    cfg.evaluate.every = 500
    return cfg


def rows(resolution: str, keep: float, frames: range, batch_up_to: Mapping[int, int]) -> tuple:
    """Bucket rows: clips of n frames take the batch of the smallest limit that is not below n."""
    return tuple(
        (resolution, n, keep, next(batch for most, batch in sorted(batch_up_to.items()) if n <= most)) for n in frames
    )
