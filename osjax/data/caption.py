"""What captions say of frame rate and motion: one format, for training and for sampling.

The original trains on " 24 FPS, 4 motion score." and samples with " 24 FPS. 4 motion score."; here both are the same
words, those of its training. Source: Open-Sora opensora/datasets/datasets.py.
"""

import math
import re

from osjax.data.buckets import reduce_fps

_STATED = re.compile(r"[\d.]+ FPS(, \d+ motion score)?\.$")


def suffixed(text: str, fps: float | None, motion: float | None = None) -> str:
    """The text with " 24 FPS, 4 motion score." at its end, of the two what is given.

    fps: frames per second; None or 0 is not stated. motion: vmafmotion's score; None or NaN is not stated. A text that
    ends so already stays as it is. The score is rounded half up, as the original does.
    """
    notes = [f"{fps:g} FPS"] if fps else []
    if motion is not None and not math.isnan(motion):
        notes.append(f"{int(motion + 0.5)} motion score")
    text = text.rstrip()
    if not notes or _STATED.search(text):
        return text
    return f"{text} {', '.join(notes)}."


def training_caption(text: str, fps: float, fps_max: float, motion: float = math.nan) -> str:
    """The caption `text` with the rate that its clip trains at, after frames were left out.

    fps: of the clip, per second; NaN for images. fps_max: see `buckets.reduce_fps`. motion: score, NaN where unknown.
    """
    rate, _ = reduce_fps(fps, fps_max)
    return suffixed(text, rate, motion)
