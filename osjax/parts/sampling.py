"""The config keys of sampling, and what they refuse before a model is looked at."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ml_collections import ConfigDict

from osjax.errors import UserError, usage
from osjax.parallel import compiled
from osjax.parts import hub
from osjax.parts.autoencoder import AutoencoderKeys
from osjax.parts.groups import group, optional, said, to_dataclass
from osjax.parts.stage import MeshKeys
from osjax.parts.text import TextKeys
from osjax.parts.video_model import VideoModelKeys
from osjax.sampling import write
from osjax.sampling.settings import T2I2V, SampleSettings

IMAGE_SETTINGS = ("image_resolution", "image_steps", "image_guidance")  # of SampleSettings, read in mode t2i2v alone


@dataclass(frozen=True)
class ImageKeys:
    """The text-to-image model of mode t2i2v, which makes the first frame."""

    model: VideoModelKeys = VideoModelKeys(layout="flux")
    autoencoder: AutoencoderKeys = AutoencoderKeys()


@dataclass(frozen=True)
class OutputKeys:
    """Where samples go."""

    folder: str = "samples"
    layout: str = "plain"  # or vbench: {prompt}-{i}.mp4
    samples: int = 1  # a prompt
    flicker_samples: int | None = None  # of the suite temporal_flickering, of which VBench wants 25; none: samples
    by_suite: bool = False  # a folder a suite, the file that its prompts come from; else all samples in one
    crf: int = write.CRF  # of MP4s: 0 loses nothing, 51 the most
    overwrite: bool = False  # make again what is there with other settings

    def __post_init__(self):
        for name in ("samples", "flicker_samples"):
            if (count := getattr(self, name)) is not None and count < 1:
                raise UserError(f"{name} is {count}: ask for at least 1")
        write.check(self.layout, self.crf)


@dataclass(frozen=True)
class SamplingKeys:
    """What `osjax sample` is told."""

    workdir: str | None = None  # of a finished run, to sample from what was trained there
    model: VideoModelKeys = VideoModelKeys()  # or from files with the original's names
    autoencoder: AutoencoderKeys = AutoencoderKeys()
    text: TextKeys = TextKeys()
    image: ImageKeys = ImageKeys()
    dtype: str | None = None  # of velocity models: weights and computation; none: bfloat16 of files, a run's as trained
    attention: str = "auto"  # what the devices and the mesh have, a run as trained where it can; or one by name
    sample: Mapping[str, Any] = field(default_factory=dict)  # keys of SampleSettings
    output: OutputKeys = OutputKeys()
    mesh: MeshKeys = MeshKeys(data=1)  # of the video model; -1: devices left
    offload: bool = False  # weights wait on the host; the models visit the device one after the other
    int8: bool = False  # int8 weights in the blocks of the video model; needs osjax[int8]
    compilation_cache: str = compiled.FOLDER  # compiled programs are kept here; empty keeps none


def keys() -> ConfigDict:
    """The keys of a sampling config, for config files to change.

    Under `sample` everything but the mode is empty, which leaves the choice to the workdir or to the default.
    """
    cfg = group(SamplingKeys)
    cfg.sample = optional(SampleSettings, mode="t2v")
    return cfg


@usage()
def of_config(cfg: ConfigDict) -> SamplingKeys:
    """The checked keys of a sampling config. UserError for settings that nothing reads or that cannot be."""
    keys = to_dataclass(SamplingKeys, hub.resolved(cfg, {}), "")
    asked = said(keys.sample)
    to_dataclass(SampleSettings, asked, "sample")
    sized = [name for name in ("resolution", "aspect_ratio") if name in asked]
    if sized and ("height" in asked or "width" in asked):
        raise UserError(
            f"config key sample.{sized[0]}: give height and width, or a resolution with an aspect ratio, not both",
            status=2,
        )
    if asked.get("mode") != T2I2V:
        # Configs of t2i2v models may carry the image's sizes while another mode is asked for on the command line.
        idle = [name for name in IMAGE_SETTINGS if name in asked and not keys.image.model.weights]
        if idle:
            raise UserError(f"config key sample.{idle[0]} is read in mode {T2I2V} alone: leave it out", status=2)
    return keys
