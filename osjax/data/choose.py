"""A handful of buckets for a small data set: of the lengths and aspect ratios that its clips have."""

from collections.abc import Callable, Sequence

import numpy as np

from osjax.data.buckets import ENOUGH_PIXELS, pixels, ratio, reduce_fps, table


def frames_left(entries: np.ndarray, fps_max: float) -> np.ndarray:
    """Frames of every clip after whole factors of them are left out. entries: of an index. fps_max: per second."""
    return np.array([int(e["num_frames"]) // reduce_fps(float(e["fps"]), fps_max)[1] for e in entries], np.int64)


def large_enough(entries: np.ndarray, resolution: str) -> np.ndarray:
    """The entries of an index whose clips have the pixels that a resolution, such as 256px, asks for."""
    return entries[entries["height"].astype(np.int64) * entries["width"] >= pixels(resolution) * ENOUGH_PIXELS]


def lengths(frames: np.ndarray, allowed: Sequence[int], most: int) -> tuple[int, ...]:
    """Numbers of frames to train at, rising: those by which clips lose the fewest frames.

    frames: of every clip. allowed: rising numbers that the autoencoder takes. most: how many to choose. The shortest
    that any clip has is always among them, so that no clip is left out which some allowed number fits.
    """
    places = np.searchsorted(np.asarray(allowed), frames[frames > 1], side="right")
    values, counts = np.unique(np.asarray(allowed)[places[places > 0] - 1], return_counts=True)

    def lost(chosen: list[int]) -> int:
        below = np.sort(chosen)[np.searchsorted(np.sort(chosen), values, side="right") - 1]
        return int((counts * (values - below)).sum())

    return tuple(sorted(_greedy(values.tolist(), most, lost, values[:1].tolist())))


def aspects(entries: np.ndarray, resolution: str, multiple: int, most: int) -> tuple[str, ...]:
    """Aspect ratios to train at, width:height: those by which clips are cropped the least.

    entries: of an index. resolution, multiple: as `buckets.table` takes them. most: how many to choose.
    """
    names = list(table(resolution, multiple))
    shapes, counts = np.unique(entries["height"] / entries["width"].astype(float), return_counts=True)
    away = np.abs(shapes[:, None] - [ratio(name) for name in names])  # as `buckets.closest` measures it

    def cropped(chosen: list[str]) -> float:
        return float((counts * away[:, [names.index(name) for name in chosen]].min(axis=1)).sum())

    return tuple(_greedy(names, most, cropped, []))


def _greedy(values: Sequence, most: int, cost: Callable[[list], float], chosen: list) -> list:
    """Values one after the other, each the one that lowers the cost the most, while any does."""
    while len(chosen) < most and (left := [value for value in values if value not in chosen]):
        best = min(left, key=lambda value: cost([*chosen, value]))
        if chosen and cost([*chosen, best]) >= cost(chosen):
            break
        chosen = [*chosen, best]
    return chosen
