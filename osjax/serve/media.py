"""The files of a finished video: the MP4 with its settings inside, a thumbnail, a sheet of frames, its last frame."""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from osjax import atomic
from osjax.sampling import write
from osjax.serve.files import LAST, SPRITESHEET, STILL, THUMBNAIL, VIDEO
from osjax.types import Json

MARK = "osjax:"  # ahead of the settings in a file's comment
THUMB_SIDE, SHEET_SIDE, SHEET_FRAMES = 320, 160, 16  # pixels, frames


def save(folder: Path, video_THWC: np.ndarray, settings: Json, fps: float, crf: int) -> int:
    """Write all files of a video (uint8) into a folder, each whole or not at all, the video last; bytes of them.

    settings: what the video's comment says. fps, crf: of the MP4.
    """
    folder.mkdir(parents=True, exist_ok=True)
    still = len(video_THWC) == 1
    comment = MARK + json.dumps(settings, ensure_ascii=True)
    made = {
        THUMBNAIL: _image(_small(video_THWC[len(video_THWC) // 2], THUMB_SIDE), "WEBP"),
        SPRITESHEET: _image(_sheet(video_THWC), "JPEG"),
        LAST: _image(video_THWC[-1], "PNG"),
        STILL if still else VIDEO: write.encode(video_THWC, ".png" if still else ".mp4", fps, crf, comment),
    }
    for name, data in made.items():
        atomic.write_bytes(folder / name, data)
    return sum(map(len, made.values()))


def settings_in(comment: str | None) -> Json | None:
    """The settings that a file's comment tells; None where it has none of ours."""
    if not comment or not comment.startswith(MARK) or len(comment) > 2**20:
        return None
    try:
        told = json.loads(comment.removeprefix(MARK))
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) else None


def _small(frame_HWC: np.ndarray, side: int) -> np.ndarray:
    image = Image.fromarray(frame_HWC)
    image.thumbnail((side, side))
    return np.asarray(image)


def _sheet(video_THWC: np.ndarray) -> np.ndarray:
    """Frames spread evenly over a video, side by side in rows of four, from the top left on."""
    T = len(video_THWC)
    at = np.unique(np.round(np.linspace(0, T - 1, min(T, SHEET_FRAMES))).astype(int))
    frames = [_small(video_THWC[i], SHEET_SIDE) for i in at]
    columns = min(4, len(frames))
    rows = -(-len(frames) // columns)
    H, W, _ = frames[0].shape
    sheet = np.zeros((rows * H, columns * W, 3), np.uint8)
    for n, frame in enumerate(frames):
        row, column = divmod(n, columns)
        sheet[row * H : (row + 1) * H, column * W : (column + 1) * W] = frame
    return sheet


def _image(frame_HWC: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(frame_HWC)).save(file, format=kind)
    return file.getvalue()
