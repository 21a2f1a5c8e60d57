"""A release in miniature, for tests that fine-tune: weight files of tiny models, captioned clips, and a config."""

from pathlib import Path

from safetensors.numpy import save_file

from osjax import models, weights
from osjax.curation.probe import probe
from osjax.data import clips, dataset, video
from tests.sampling import tiny

CONFIG = """
from ml_collections import ConfigDict
from osjax.configs import base
from tests.sampling import tiny

def get_config():
    cfg = base.single("tuned", base.diffusion())
    cfg.steps = 1
    cfg.model.update({**tiny.DENOISER, "dtype": "float32"})
    cfg.text.update(tiny.TEXT)
    cfg.start.weights = VIDEO
    cfg.autoencoder.weights, cfg.autoencoder.family = AUTOENCODER, "dcae"
    cfg.autoencoder.config = ConfigDict(tiny.AUTOENCODER)
    cfg.data.source = SOURCE
    cfg.data.buckets = (("32px", 8, 1.0, 1),)
    cfg.data.batch_per_device = True
    cfg.optimizer.lr = 1e-3
    cfg.sample.update(frames=8, height=32, width=32, steps=2, fps=8)
    cfg.compilation_cache = ""
    return cfg
"""

FINETUNE = """
from ml_collections import ConfigDict
from osjax.configs.finetune import lora_t2v_256
from tests.sampling import tiny

def get_config():
    cfg = lora_t2v_256.get_config()
    cfg.steps = 2
    cfg.model.update({**tiny.DENOISER, "dtype": "float32"})
    cfg.start.weights = "ckpts/video.safetensors"
    cfg.autoencoder.weights, cfg.autoencoder.family = "ckpts/autoencoder.safetensors", "dcae"
    cfg.autoencoder.config = ConfigDict(tiny.AUTOENCODER)
    cfg.text.update({**tiny.TEXT, "t5": None, "clip": None})
    cfg.data.choose.update(resolution="32px", frames=8)
    cfg.data.state_fps = cfg.data.state_motion = False
    cfg.lora.update(rank=2, alpha=2.0)
    cfg.optimizer.warmup_steps = 0
    cfg.sample = ConfigDict({"frames": 8, "height": 32, "width": 32, "steps": 2, "fps": 8})
    cfg.compilation_cache = ""
    return cfg
"""


def write_weights(folder: Path) -> None:
    """The files video.safetensors and autoencoder.safetensors."""
    for name, cfg in (("video", ("mmdit", tiny.DENOISER)), ("autoencoder", ("dcae", tiny.AUTOENCODER))):
        model = models.config(cfg[0], **cfg[1])
        save_file(weights.to_torch(model, tiny.params(model)), folder / f"{name}.safetensors")


def write_clips(folder: Path, count: int, size: int = 32, frames: int = 8) -> Path:
    """So many MP4 files of moving shapes, each with its caption in a .txt beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, spec in enumerate(clips.specs(count, 0, clips.combinations())):
        video.write_mp4(folder / f"{number:03d}.mp4", clips.render(spec, size, frames), 8)
        (folder / f"{number:03d}.txt").write_text(spec.caption)
    return folder


def data_set(folder: Path, clips_folder: Path) -> Path:
    """The data set of a folder of clips."""
    return Path(dataset.build_clips(probe(clips_folder).kept, folder))


def sampling_config(path: Path, folder: Path) -> Path:
    """The config file `path`, which samples the release's model from its files in `folder`."""
    path.write_text(f"""
from ml_collections import ConfigDict
from osjax.configs.sample.options import options
from tests.sampling import tiny

def get_config():
    cfg = options()
    cfg.dtype = "float32"
    cfg.attention = "dense"
    cfg.model.weights = {str(folder / "video.safetensors")!r}
    cfg.model.config = ConfigDict(tiny.DENOISER)
    cfg.autoencoder.weights = {str(folder / "autoencoder.safetensors")!r}
    cfg.autoencoder.config = ConfigDict(tiny.AUTOENCODER)
    cfg.text.update(tiny.TEXT)
    cfg.sample.update(dict(frames=8, height=32, width=32, steps=2, fps=8))
    return cfg
""")
    return path


def write(folder: Path, count: int = 16) -> Path:
    """The config file of a stage that goes on with the release on so many clips, beside all that it names."""
    write_weights(folder)
    source = data_set(folder / "set", write_clips(folder / "clips", count))
    names = {
        "VIDEO": folder / "video.safetensors",
        "AUTOENCODER": folder / "autoencoder.safetensors",
        "SOURCE": source,
        "CACHE": folder / "cache",
    }
    path = folder / "tuned.py"
    path.write_text("\n".join(f"{name} = {str(file)!r}" for name, file in names.items()) + CONFIG)
    return path
