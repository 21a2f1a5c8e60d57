"""Samples to files: an MP4 (a PNG for one frame) and a JSON of its settings, whole or not at all."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from osjax import atomic
from osjax.data import video
from osjax.errors import UserError
from osjax.sampling.names import LAYOUTS, file_stem


@dataclass(frozen=True)
class Output:
    """A folder of samples.

    layout: "plain" puts the JSON beside each video. "vbench" puts it into the sibling folder `NAME.settings`, since
    VBench takes the suffix of all videos from whatever file it finds first.
    """

    folder: Path
    layout: str = "plain"

    def __post_init__(self):
        if self.layout not in LAYOUTS:
            raise UserError(f"unknown layout {self.layout!r}: use one of {', '.join(LAYOUTS)}")

    @property
    def settings_folder(self) -> Path:
        return self.folder.absolute() if self.layout == "plain" else self.beside("settings")

    def beside(self, name: str) -> Path:
        """A folder for other files: inside, or for VBench, which wants videos alone, next to the folder."""
        folder = self.folder.absolute()
        return folder / name if self.layout == "plain" else folder.with_name(f"{folder.name}.{name}")

    def media(self, stem: str, frames: int) -> Path:
        return self.folder.absolute() / f"{stem}{'.png' if frames == 1 else '.mp4'}"

    def json(self, stem: str) -> Path:
        return self.settings_folder / f"{stem}.json"

    def finished(self, stem: str, frames: int, settings: Mapping[str, Any]) -> bool:
        """Whether the sample is there. UserError if it was made with other settings."""
        if not (self.media(stem, frames).is_file() and self.json(stem).is_file()):
            return False
        try:
            found = json.loads(self.json(stem).read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{self.json(stem)} is no JSON of osjax: give another --output, or --overwrite") from error
        wanted = json.loads(json.dumps(settings))
        differ = [key for key in wanted if not isinstance(found, dict) or found.get(key) != wanted[key]]
        if differ:
            raise UserError(
                f"{self.media(stem, frames)} was made with another {differ[0]}: give another --output, or --overwrite"
            )
        return True

    def write(self, stem: str, video_THWC: np.ndarray, settings: Mapping[str, Any], fps: float) -> Path:
        """Write a sample (uint8); the path of the MP4 or PNG. Killed at any moment, it leaves no half file behind."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.settings_folder.mkdir(parents=True, exist_ok=True)
        path = self.media(stem, len(video_THWC))
        self._place(path, _png(video_THWC[0]) if len(video_THWC) == 1 else video.encode(video_THWC, fps))
        text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
        self._place(self.json(stem), text.encode("utf-8", "backslashreplace"))
        return path

    def _place(self, path: Path, data: bytes) -> None:
        partial = atomic.beside(self.settings_folder / path.name)  # the folder of the samples holds nothing else
        partial.write_bytes(data)
        atomic.place(partial, path)


def _png(image_HWC: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image_HWC).save(file, format="PNG")
    return file.getvalue()


def write_samples(
    folder: Path, videos_BTHWC: np.ndarray, prompts: Sequence[str], settings: Mapping, fps: float
) -> list[Path]:
    """Write every video (uint8) and its settings; returns the paths in order."""
    output = Output(folder)
    return [
        output.write(file_stem(i, prompt), video, {"prompt": prompt, "index": i, **settings}, fps)
        for i, (video, prompt) in enumerate(zip(videos_BTHWC, prompts, strict=True))
    ]
