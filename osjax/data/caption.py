"""What captions and prompts say of frame rate and motion.

The original trains on " 24 FPS, 4 motion score." and samples with ". 24 FPS. 4 motion score.": two forms. Its released
weights are sampled in the second one, models that were trained here in the first, which they know.
Source: Open-Sora opensora/datasets/datasets.py, opensora/utils/inference.py.
"""

import math
import re

from osjax.data.buckets import reduce_fps

FORMS = ("original", "training")  # of prompts: what the original samples with, what captions are in training
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


def prompt(text: str, form: str, fps: float | None, motion: int | None = None) -> str:
    """A prompt with frame rate and motion score at its end, of the two what is given; see `suffixed`.

    text: the prompt. form: one of FORMS. fps: frames per second. motion: score, 1 still to 7 fast.
    """
    if form == "training":
        return suffixed(text, fps, motion)
    if fps:
        text = text.strip()
        text = text if text.endswith(".") else text + "."
        text = text if re.search(r"\d+ FPS\.$", text) else f"{text} {fps:g} FPS."
    return text if motion is None else f"{text} {motion} motion score."


def training_caption(
    text: str, fps: float, fps_max: float, motion: float = math.nan, state_fps: bool = True, state_motion: bool = True
) -> str:
    """The caption `text` with the rate that its clip trains at, after frames were left out, and its motion score.

    fps: of the clip, per second; NaN for images. fps_max: see `buckets.reduce_fps`. motion: score, NaN where unknown.
    state_fps, state_motion: which of them are said.
    """
    rate, _ = reduce_fps(fps, fps_max)
    return suffixed(text, rate if state_fps else None, motion if state_motion else None)
