"""What a bench config is made of; every key is a field of `BenchKeys` in osjax/parts/bench.py."""

from ml_collections import ConfigDict

from osjax.parts import bench


def options() -> ConfigDict:
    """The 11B model and the HunyuanVideo autoencoder at 256 pixels; change sizes."""
    return bench.keys()


def released(resolution: int, frames: int) -> ConfigDict:
    """The 11B model as its stages train it. resolution: pixels of a square's side."""
    cfg = options()
    cfg.model.attention = "auto"
    cfg.model.remat = "full"
    cfg.mesh.fsdp = -1
    cfg.mesh.data = 1
    cfg.video.update(frames=frames, height=resolution, width=resolution)
    cfg.clips.update(train=32, frames=33, size=256, fps=24)
    cfg.data.buckets = (("256px", 33, 1.0, 8),)
    cfg.data.threads = 8
    return cfg
