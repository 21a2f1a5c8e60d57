"""Reads colour, shape and direction of a procedural clip back from its pixels, by plain image analysis.

Nothing is learned, so a model cannot fool it by being trained on it: the object is what stands out from the blurred
background in every frame, its colour the nearest of the palette, its shape the nearest of drawn templates, its
direction the way its centre goes.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy import ndimage

from osjax.data.clips import COLOURS, DIRECTIONS, SHAPES, ClipSpec, distance

TEMPLATE = 24  # side of the grid that masks are compared on


def match(video_THWC: np.ndarray) -> dict[str, str | None]:
    """{"colour", "shape", "direction"} of a clip, video_THWC in uint8; None where nothing stands out."""
    objects = [_find(frame) for frame in video_THWC]
    frames = [one for one in objects if one is not None]
    if len(frames) < 2:
        return {"colour": None, "shape": None, "direction": None}
    return {
        "colour": _majority([colour for colour, _, _ in frames]),
        "shape": _shape([mask for _, mask, _ in frames]),
        "direction": _direction([centre for _, _, centre in frames], video_THWC.shape[1]),
    }


def score(videos: Sequence[np.ndarray], specs: Sequence[ClipSpec]) -> dict[str, float | int]:
    """Fraction of clips whose colour, direction and shape are read as specified, and the number of clips, `samples`.

    videos: uint8 (T, H, W, 3). specs: what each should show.
    """
    read = [match(video) for video in videos]
    hits = {
        name: float(np.mean([r[name] == getattr(s, name) for r, s in zip(read, specs, strict=True)]))
        for name in ("colour", "direction", "shape")
    }
    return {**hits, "samples": len(read)}


def _find(frame: np.ndarray) -> tuple[str, np.ndarray, np.ndarray] | None:
    """(colour, cover mask (H, W) in [0, 1], centre (x, y) in pixels) of the object of one frame."""
    image = frame.astype(np.float64)
    background = np.median(image.reshape(-1, 3), axis=0)
    away = np.linalg.norm(image - background, axis=-1)
    if away.max() < 50:
        return None
    core = _largest(away > 0.6 * np.quantile(away, 0.99))
    if core.sum() < 8:
        return None
    colour = np.median(image[core], axis=0)
    # How far a pixel has gone from the background towards the object's colour: its cover, whatever the blur.
    axis = colour - background
    cover = np.clip((image - background) @ axis / (axis @ axis), 0, 1)
    cover = np.where(_largest(cover > 0.5), cover, 0)
    if cover.sum() < 8:
        return None
    y, x = np.mgrid[0 : frame.shape[0], 0 : frame.shape[1]] + 0.5
    centre = np.array([(cover * x).sum(), (cover * y).sum()]) / cover.sum()
    return _nearest_colour(colour), cover, centre


def _nearest_colour(rgb: np.ndarray) -> str:
    return min(COLOURS, key=lambda name: np.linalg.norm(rgb - np.array(COLOURS[name])))


def _largest(mask: np.ndarray) -> np.ndarray:
    """The largest 4-connected region of a mask (H, W)."""
    regions, count = ndimage.label(mask)
    if not count:
        return mask
    sizes = np.bincount(regions.ravel())
    return regions == 1 + sizes[1:].argmax()  # 0 is what lies outside


def _majority(values: Sequence[str]) -> str:
    return max(sorted(set(values)), key=values.count)


def _direction(centres: Sequence[np.ndarray], side: int) -> str | None:
    """The direction whose axis the centre's least-squares way follows best; None if it hardly moves."""
    time = np.arange(len(centres)) - (len(centres) - 1) / 2
    way = (time[:, None] * np.stack(centres)).sum(0) / (time**2).sum() * (len(centres) - 1)
    if np.abs(way).max() < 0.05 * side:
        return None
    return max(DIRECTIONS, key=lambda name: way @ np.array(DIRECTIONS[name]))


def _normalised(mask: np.ndarray) -> np.ndarray:
    """The cover of the object on a grid, moved to its centre and scaled to unit area: (TEMPLATE, TEMPLATE)."""
    y, x = np.mgrid[0 : mask.shape[0], 0 : mask.shape[1]] + 0.5
    area = mask.sum()
    cx, cy = (mask * x).sum() / area, (mask * y).sum() / area
    reach = 0.95 * np.sqrt(area)  # half of the window, in pixels
    at = (np.arange(TEMPLATE) + 0.5) / TEMPLATE * 2 - 1
    rows, columns = cy + at * reach - 0.5, cx + at * reach - 0.5
    return _sample(mask, rows, columns)


def _sample(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Bilinear samples on the grid rows x columns; zero outside."""
    padded = np.pad(image, 1)
    r, c = np.clip(rows + 1, 0, image.shape[0] + 0.999), np.clip(columns + 1, 0, image.shape[1] + 0.999)
    r0, c0 = r.astype(int), c.astype(int)
    fr, fc = (r - r0)[:, None], (c - c0)[None]
    top = padded[r0][:, c0] * (1 - fc) + padded[r0][:, c0 + 1] * fc
    bottom = padded[r0 + 1][:, c0] * (1 - fc) + padded[r0 + 1][:, c0 + 1] * fc
    return top * (1 - fr) + bottom * fr


@lru_cache
def _templates(blur: float) -> dict[str, np.ndarray]:
    """Every shape drawn large, softened by `blur` (of its radius), on the same grid."""
    v, u = np.mgrid[-1.6:1.6:96j, -1.6:1.6:96j]
    return {s: _normalised(np.clip(0.5 - distance(s, u, v, 1.0) / max(blur, 0.03), 0, 1)) for s in SHAPES}


def _shape(masks: Sequence[np.ndarray]) -> str:
    seen = np.mean([_normalised(mask) for mask in masks], axis=0)

    def error(name: str) -> float:
        # The best of a sharp and a soft template: a lossy decoder rounds corners.
        return min(float(np.square(seen - _templates(blur)[name]).mean()) for blur in (0.1, 0.4))

    return min(SHAPES, key=error)
