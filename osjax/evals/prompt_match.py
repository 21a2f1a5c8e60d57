"""Reads what the caption of a procedural clip says back from its pixels, by plain image analysis.

Nothing is learned, so a model cannot fool it by being trained on it: the object is what stands out from the
background in every frame, its colour the nearest of the palette, its shape the nearest of drawn templates, its
direction the way its centre goes, its motion score how far. What lies around it is the background's (`background.py`).
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from osjax.data.clips import COLOURS, DIRECTIONS, NOTCH, SHAPES, SPEEDS, STAR, WORDS, ClipSpec, distance
from osjax.evals import background

TEMPLATE = 24  # side of the grid that masks are compared on
BLUNT = (0.68, 0.8)  # notches of a star that a decoder has filled; without any, at 0.99, it is a square on a corner
STILL = 0.04  # of the side: an object whose centre goes no farther has no direction


class Reading(NamedTuple):
    """What a clip shows; a word is None where nothing stands out, or nothing that is known.

    motion: the score whose way is nearest. way: of the object's centre, in sides of the picture; NaN without an object.
    first_shape, last_shape: shapes in the first and the last frame.
    """

    colour: str | None = None
    shape: str | None = None
    direction: str | None = None
    tint: str | None = None
    background: str | None = None
    motion: int | None = None
    way: float = float("nan")
    first_shape: str | None = None
    last_shape: str | None = None

    def right(self, spec: ClipSpec) -> dict[str, bool]:
        """Whether each of WORDS is as a clip of `spec` shows it."""
        return {word: getattr(self, word) == getattr(spec, word) for word in WORDS}


def read(video_THWC: np.ndarray, shapes: Sequence[str] = SHAPES) -> Reading:
    """What a clip shows, video_THWC in uint8. shapes: that it may show, of SHAPES and STAR."""
    objects = [_find(frame) for frame in video_THWC]
    nothing = np.zeros(video_THWC.shape[1:3], bool)
    masks = [nothing if one is None else one[1] > 0 for one in objects]
    around = background.match(video_THWC, masks)
    frames = [one for one in objects if one is not None]
    if len(frames) < 2:
        return Reading(**around)
    x, y = _way([centre for _, _, centre in frames], len(frames)) / video_THWC.shape[1]
    known = tuple(shapes)
    first, last = (one and _shape([one[1]], known) for one in (objects[0], objects[-1]))
    return Reading(
        colour=_majority([colour for colour, _, _ in frames]),
        shape=_shape([mask for _, mask, _ in frames], known),
        direction=_direction(x, y),
        motion=_motion(x, y),
        way=float(np.hypot(x, y)),
        first_shape=first,
        last_shape=last,
        **around,
    )


def score(readings: Sequence[Reading], specs: Sequence[ClipSpec]) -> dict[str, float | int]:
    """The fraction of clips of which each of WORDS is read as specified, `all` of them at once, those whose shape stays
    (`steady`: the same in the first and the last frame), and the number of clips, `samples`.

    readings: of the clips. specs: what each should show.
    """
    right = [one.right(spec) for one, spec in zip(readings, specs, strict=True)]
    return {
        **{word: float(np.mean([hits[word] for hits in right])) for word in WORDS},
        "all": float(np.mean([all(hits.values()) for hits in right])),
        "steady": float(np.mean([r.first_shape is not None and r.first_shape == r.last_shape for r in readings])),
        "samples": len(readings),
    }


def motion_order(readings: Sequence[Sequence[Reading]]) -> float:
    """The fraction of prompts whose clips go farther with every higher motion score.

    readings: for each prompt those of its clips, by rising score. A clip without an object is in no order.
    """
    ways = np.array([[one.way for one in clips] for clips in readings])
    return float((np.diff(ways, axis=1) > 0).all(1).mean())


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


def _way(centres: Sequence[np.ndarray], frames: int) -> np.ndarray:
    """How far a centre goes from the first frame to the last, (x, y) in pixels: a least-squares line's way."""
    time = np.arange(frames) - (frames - 1) / 2
    return (time[:, None] * np.stack(centres)).sum(0) / (time**2).sum() * (frames - 1)


def _direction(x: float, y: float) -> str | None:
    """The direction whose axis a way follows best; None if it hardly moves."""
    if max(abs(x), abs(y)) < STILL:
        return None
    return max(DIRECTIONS, key=lambda name: np.dot((x, y), DIRECTIONS[name]))


def _motion(x: float, y: float) -> int:
    """The motion score whose clips go about so far."""
    return min(SPEEDS, key=lambda score: abs(np.hypot(x, y) - np.mean(SPEEDS[score])))


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
def _templates(shape: str) -> list[np.ndarray]:
    """A shape drawn large on the same grid, sharp and soft: a lossy decoder rounds corners.

    It fills the notches of a star, too, so there are some with shallower ones: what has five corners is read as a star.
    """
    v, u = np.mgrid[-1.6:1.6:96j, -1.6:1.6:96j]
    notches = (NOTCH, *BLUNT) if shape == STAR else (NOTCH,)
    drawn = [(distance(shape, u, v, 1.0, notch), blur) for notch in notches for blur in (0.1, 0.4)]  # of its radius
    return [_normalised(np.clip(0.5 - away / blur, 0, 1)) for away, blur in drawn]


def _shape(masks: Sequence[np.ndarray], shapes: Sequence[str]) -> str:
    seen = np.mean([_normalised(mask) for mask in masks], axis=0)

    def error(name: str) -> float:
        return min(float(np.square(seen - template).mean()) for template in _templates(name))

    return min(shapes, key=error)
