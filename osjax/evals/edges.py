"""How much of its edges a reconstruction keeps: the steepness of its pixels where the original's outlines truly are."""

from collections.abc import Sequence

import numpy as np

from osjax.data.clips import ClipSpec, outlines

WIDTH = 1.0  # pixels to each side of an outline that belong to it


def kept(rebuilt_BTHWC: np.ndarray, real_BTHWC: np.ndarray, specs: Sequence[ClipSpec]) -> float:
    """Mean gradient magnitude along the objects' outlines, as a part of the original's: 1 where edges are as sharp.

    rebuilt_BTHWC, real_BTHWC: uint8 videos of square pictures. specs: what each of them shows.
    """
    got = want = 0.0
    for rebuilt, real, spec in zip(rebuilt_BTHWC, real_BTHWC, specs, strict=True):
        frames, side = real.shape[:2]
        outline = np.abs(outlines(spec, side, frames)) * side < WIDTH
        got += _steepness(rebuilt)[outline].sum()
        want += _steepness(real)[outline].sum()
    return float(got / want)


def _steepness(video_THWC: np.ndarray) -> np.ndarray:
    """Length of the gradient of all three colours at every pixel: (T, H, W)."""
    dy, dx = np.gradient(video_THWC.astype(np.float64), axis=(1, 2))
    return np.sqrt((dy**2 + dx**2).sum(-1))
