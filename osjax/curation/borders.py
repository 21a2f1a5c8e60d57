"""Black borders: the box that holds all that is not black in a video."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from osjax.data import opened
from osjax.data.shown import Viewer

BLACK = 24  # luma of 255 up to which a line is black, as in libavfilter's cropdetect
SAMPLES = 8  # key frames that are looked at
SMALLEST = 1 / 4  # of the area; a smaller box is a dark video rather than one with borders


@dataclass(frozen=True)
class Box:
    """A part of a frame, in pixels."""

    top: int
    left: int
    height: int
    width: int


def find(path: Path | str) -> Box | None:
    """The box of a video without its borders; None when there is none to crop. Looks at key frames all over it.

    path: of the video. UserError for a file that cannot be decoded.
    """
    brightest_HW = None
    for luma_HW in _samples(path):
        if brightest_HW is None:
            brightest_HW = luma_HW
        elif luma_HW.shape == brightest_HW.shape:
            brightest_HW = np.maximum(brightest_HW, luma_HW)
    return None if brightest_HW is None else box(brightest_HW)


def box(luma_HW: np.ndarray) -> Box | None:
    """The box from the first to the last line whose mean luma exceeds BLACK; None when that is all of it, or little.

    luma_HW: of the brightest that each pixel gets, 0 to 255.
    """
    H, W = luma_HW.shape
    rows = np.flatnonzero(luma_HW.mean(1) > BLACK)
    columns = np.flatnonzero(luma_HW.mean(0) > BLACK)
    if not len(rows) or not len(columns):
        return None
    top, left = int(rows[0]), int(columns[0])
    inner = Box(top, left, int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left)
    return inner if SMALLEST <= inner.height * inner.width / (H * W) < 1 else None


def _samples(path: Path | str):
    with opened.video(path) as (container, stream):
        stream.codec_context.skip_frame = "NONKEY"
        viewer, start, length = Viewer(stream), stream.start_time or 0, stream.duration or 0
        for i in range(SAMPLES if length else 1):
            container.seek(start + length * i // SAMPLES, stream=stream)
            frame = next(container.decode(stream), None)
            if frame is not None:
                yield viewer.plain(frame).to_ndarray(format="gray")
