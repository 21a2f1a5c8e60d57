"""Reads kind and tint of a procedural clip's background back from its pixels, by the slopes of its brightness."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from osjax.data.clips import TINTS

FLAT = 5.0  # standard deviation of brightness below which a background is plain, in levels of 255
COARSE, FINE = 2.6, 8.0  # cycles a side: clouds have fewer than the one, noise has more than the other
ALIGNED = 0.75  # of slopes: those of stripes all lie along one axis, those of waves swing about it, to 0.5 or so
RIM = 3 / 80  # of the side: how far an object's soft edge reaches
SOFT = 1.5 / 80  # of the side: what brightness is smoothed with, so that slopes are the pattern's and not the noise's
KEPT = 0.5  # of the spread that smoothing leaves at least, or there is nothing but noise


def match(video_THWC: np.ndarray, objects_THW: Sequence[np.ndarray]) -> dict[str, str | None]:
    """{"background", "tint"} of a clip; None where it is none of the kinds.

    video_THWC: uint8. objects_THW: masks of what is not background, one a frame.
    """
    frames = np.asarray(video_THWC, np.float64)
    around = [~_wider(mask, round(RIM * frames.shape[1]) + 1) for mask in objects_THW]
    seen = np.concatenate([frame[mask] for frame, mask in zip(frames, around, strict=True)])
    if len(seen) < 100:
        return {"background": None, "tint": None}
    kinds = [_kind(frame.mean(-1), mask) for frame, mask in zip(frames, around, strict=True) if mask.sum() > 100]
    return {"background": max(sorted(set(kinds), key=str), key=kinds.count), "tint": _tint(seen.mean(0))}


def _wider(mask: np.ndarray, pixels: int) -> np.ndarray:
    return ndimage.binary_dilation(mask, iterations=pixels)


def _kind(bright_HW: np.ndarray, around_HW: np.ndarray) -> str | None:
    """One of clips.BACKGROUNDS, of a frame. around_HW: which of its pixels are background."""
    smooth_HW = _smooth(bright_HW, around_HW, SOFT * len(bright_HW))
    spread = smooth_HW[around_HW].std()
    if spread < FLAT:
        return "plain"
    if spread < KEPT * bright_HW[around_HW].std():
        return None
    dy, dx = np.gradient(smooth_HW)
    inner = around_HW & ~_wider(~around_HW, 1)  # slopes reach one pixel to each side
    dx, dy = dx[inner], dy[inner]
    xx, yy, xy = (dx * dx).mean(), (dy * dy).mean(), (dx * dy).mean()
    cycles = np.sqrt(xx + yy) / spread * len(bright_HW) / (2 * np.pi)  # exact for a plane wave
    if cycles < COARSE:
        return "cloudy"
    if cycles > FINE:
        return None
    aligned = np.hypot(xx - yy, 2 * xy) / (xx + yy)  # 1: all slopes along one axis; 0: as many along any
    return "striped" if aligned > ALIGNED else "wavy"


def _smooth(bright_HW: np.ndarray, around_HW: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian means over those neighbours that are background; sigma in pixels."""
    total = ndimage.gaussian_filter(np.where(around_HW, bright_HW, 0.0), sigma)
    return total / np.maximum(ndimage.gaussian_filter(around_HW.astype(np.float64), sigma), 1e-6)


def _tint(rgb: np.ndarray) -> str:
    """The tint whose shades lie nearest in hue: what a colour is besides its brightness."""

    def hue(colour: np.ndarray) -> np.ndarray:
        return (colour - colour.mean()) / max(colour.mean(), 1.0)

    return min(TINTS, key=lambda name: float(np.linalg.norm(hue(rgb) - hue(np.mean(TINTS[name], axis=0)))))
