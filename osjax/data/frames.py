"""Which frames of a clip are trained on: every n-th of a window that may start anywhere."""

import numpy as np

from osjax.errors import UserError


def latest_start(total: int, num_frames: int, interval: int) -> int:
    """The last frame that a window of num_frames * interval frames may start at, in a clip of `total` frames.

    One earlier than would fit, as the original has it. Source: Open-Sora opensora/datasets/video_transforms.py.
    """
    return max(0, total - num_frames * interval - 1)


def pick(total: int, num_frames: int, interval: int = 1, start: int = 0) -> np.ndarray:
    """The indices of num_frames frames, int (num_frames,), of the window that begins at `start`, first to last.

    total: frames of the clip. interval: every so many frames one is taken, about.
    Indices are spread evenly over the whole window, so the last step is a little longer than `interval`. A window that
    the clip's end cuts short gives denser frames; UserError when it has fewer than num_frames.
    Source: Open-Sora opensora/datasets/utils.py.
    """
    end = min(start + num_frames * interval, total)
    if end - start < num_frames:
        raise UserError(f"{total} frames, {num_frames} needed from frame {start}: remove the clip from the table")
    return np.linspace(start, end - 1, num_frames, dtype=int)
