"""Samples to files: an MP4 a video and a JSON of the settings beside it, always inside the output folder."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from osjax.data.video import write_mp4

MAX_NAME = 100  # characters of a prompt in a file name; file systems allow 255 bytes


def file_stem(index: int, prompt: str) -> str:
    """A file name that no prompt can lead out of its folder: the index, then letters, digits and dashes only."""
    words = re.sub(r"[^\w]+", "-", prompt, flags=re.ASCII).strip("-")[:MAX_NAME]
    return f"{index:04d}-{words}" if words else f"{index:04d}"


def write_samples(
    folder: Path, videos_BTHWC: np.ndarray, prompts: Sequence[str], settings: Mapping, fps: float
) -> list[Path]:
    """Write every video (uint8) and its settings; returns the MP4 paths in order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i, (video, prompt) in enumerate(zip(videos_BTHWC, prompts, strict=True)):
        path = folder / f"{file_stem(i, prompt)}.mp4"
        write_mp4(path, video, fps)
        path.with_suffix(".json").write_text(json.dumps({"prompt": prompt, "index": i, **settings}, indent=2) + "\n")
        paths.append(path)
    return paths
