"""Samples to files: an MP4 (a PNG for one frame) and a JSON of its settings, whole or not at all."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from osjax import atomic, json_file
from osjax.data import video
from osjax.errors import UserError
from osjax.sampling.names import LAYOUTS, file_stem
from osjax.types import Json

SUFFIXES = (".mp4", ".png")
SINCE = {
    "solver": "euler",
    "guidance_from": 1.0,
    "guidance_until": 0.0,
}  # settings that older samples do not state -> what these were made with
CRF = 23  # of x264: as the original saves its samples, opensora/datasets/utils.py; 0 loses nothing


def check(layout: str, crf: int) -> None:
    """UserError for a layout that there is not, or a `crf` that x264 does not have. layout, crf: see `Output`."""
    if not 0 <= crf <= 51:
        raise UserError(f"crf is {crf}: give 0, for MP4s that lose nothing, to 51")
    if layout not in LAYOUTS:
        raise UserError(f"unknown layout {layout!r}: use one of {', '.join(LAYOUTS)}")


@dataclass(frozen=True)
class Output:
    """A folder of samples.

    layout: "plain" puts the JSON beside each video. "vbench" puts it into the sibling folder `NAME.settings`, since
    VBench takes the suffix of all videos from whatever file it finds first. by_suite: samples lie in a folder of their
    suite, and their JSONs in one of the same name. crf: of MP4s, 0 (nothing is lost) to 51.
    """

    folder: Path
    layout: str = "plain"
    by_suite: bool = False
    crf: int = CRF

    def __post_init__(self):
        check(self.layout, self.crf)

    @property
    def settings_folder(self) -> Path:
        """The folder of the JSONs."""
        return self.folder.absolute() if self.layout == "plain" else self.beside("settings")

    def beside(self, name: str) -> Path:
        """A folder `name` for other files: inside, or for VBench, which wants videos alone, next to the folder."""
        folder = self.folder.absolute()
        return folder / name if self.layout == "plain" else folder.with_name(f"{folder.name}.{name}")

    def media(self, stem: str, frames: int) -> Path:
        """The file of a sample of this many frames."""
        return self.folder.absolute() / f"{stem}{suffix_of(frames)}"

    def json(self, stem: str) -> Path:
        """The file of a sample's settings."""
        return self.settings_folder / f"{stem}.json"

    def finished(self, stem: str, frames: int, settings: Mapping[str, Any]) -> bool:
        """Whether the sample of this stem and many frames is there. UserError if it was made with other settings."""
        if not (self.media(stem, frames).is_file() and self.json(stem).is_file()):
            return False
        try:
            told = json_file.parse(self.json(stem).read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{self.json(stem)} is no JSON of osjax: give another --output, or --overwrite") from error
        wanted = json.loads(json.dumps(settings))
        told = {**SINCE, **told}
        differ = [key for key in wanted if told.get(key) != wanted[key]]
        if differ:
            raise UserError(
                f"{self.media(stem, frames)} was made with another {differ[0]}: give another --output, or --overwrite"
            )
        return True

    def write(self, stem: str, video_THWC: np.ndarray, settings: Mapping[str, Any], fps: float) -> Path:
        """Write a sample under this stem; the path of the MP4 or PNG. settings, fps: as `write` below takes them."""
        path = self.media(stem, len(video_THWC))
        write(path, self.json(stem), video_THWC, settings, fps, self.crf)
        return path


def write(
    path: Path, settings_path: Path, video_THWC: np.ndarray, settings: Mapping[str, Any], fps: float, crf: int = CRF
) -> None:
    """Write a sample, an MP4 or PNG by the suffix of `path`, and a JSON of its settings to `settings_path`.

    video_THWC: uint8. settings: JSON values.
    Folders are made where they are missing. Killed at any moment, it leaves no half file of either name behind.
    fps, crf: frames a second and quality, of an MP4. UserError as for `encode`.
    """
    data = encode(video_THWC, path.suffix, fps, crf)
    text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
    for folder in (path.parent, settings_path.parent):
        folder.mkdir(parents=True, exist_ok=True)
    for place, content in ((path, data), (settings_path, text.encode("utf-8", "backslashreplace"))):
        # Unfinished files lie beside the settings: VBench would take the suffix of all videos from one of them.
        unfinished = atomic.beside(settings_path.with_name(place.name))
        try:
            unfinished.write_bytes(content)
            atomic.place(unfinished, place)
        except OSError as error:
            error.filename = error.filename or str(place)
            raise
        finally:
            unfinished.unlink(missing_ok=True)


def suffix_of(frames: int) -> str:
    """What a sample of this many frames is written as: `.png` for one, `.mp4` for more."""
    return ".png" if frames == 1 else ".mp4"


def encode(video_THWC: np.ndarray, suffix: str, fps: float, crf: int = CRF, comment: str | None = None) -> bytes:
    """The bytes of an MP4 or, for one frame, of a PNG.

    video_THWC: uint8. suffix: one of SUFFIXES, in any case. fps, crf: frames a second and quality, of an MP4.
    comment: text that the file carries with it.
    UserError for several frames as a PNG, and for odd sizes as an MP4.
    """
    if suffix.lower() != ".png":
        return video.encode(video_THWC, fps, crf, comment)
    if len(video_THWC) != 1:
        raise UserError(f"a PNG holds one frame, the video has {len(video_THWC)}: write it as .mp4")
    file, told = io.BytesIO(), PngInfo()
    if comment is not None:
        told.add_itxt("comment", comment)
    Image.fromarray(video_THWC[0]).save(file, format="PNG", pnginfo=told)
    return file.getvalue()


def write_samples(
    folder: Path, videos_BTHWC: np.ndarray, prompts: Sequence[str], settings: Json, fps: float, crf: int = CRF
) -> list[Path]:
    """Write every video (uint8) and its settings to a folder; returns the paths in order.

    prompts: of the videos, for their names. settings: JSON values that all share. fps: frames a second. crf: of x264.
    """
    output = Output(folder, crf=crf)
    return [
        output.write(file_stem(i, prompt), video, {"prompt": prompt, "index": i, **settings}, fps)
        for i, (video, prompt) in enumerate(zip(videos_BTHWC, prompts, strict=True))
    ]
