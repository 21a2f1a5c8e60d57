"""Clips of a shape that the demo never trains on, a star, for a fine-tune of its model (configs/finetune/star.py).

They show some colours and directions only: a model that has learned the word makes stars of the others, too. Among them
are clips of the demo's own kind, without which a model that learns the new word forgets what the old ones look like.
"""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

from osjax.data import clips

COLOURS, DIRECTIONS = ("red", "green", "blue"), ("left", "right")
STARS, OLD = 20, 60  # clips of stars, and of the shapes that the demo trained on


def specs(count: int, seed: int = 0) -> list[clips.ClipSpec]:
    """So many clips of stars, with the colours and directions of the training clips. seed: of what they draw."""
    return stars(count, seed, [(colour, clips.STAR, way) for colour, way in product(COLOURS, DIRECTIONS)])


def unseen(count: int, seed: int = 0) -> list[clips.ClipSpec]:
    """So many clips of stars of colours and directions that no star for training has. seed: of what they draw."""
    others = [colour for colour in clips.COLOURS if colour not in COLOURS]
    ways = [way for way in clips.DIRECTIONS if way not in DIRECTIONS]
    return stars(count, seed, [(colour, clips.STAR, way) for colour, way in product(others, ways)])


def stars(count: int, seed: int, chosen: list[clips.Combination]) -> list[clips.ClipSpec]:
    """`count` clips of stars that stay inside the picture. seed: of what they draw. chosen: their combinations."""

    def inside(spec: clips.ClipSpec) -> clips.ClipSpec:
        half_way = np.abs(clips.DIRECTIONS[spec.direction]) * spec.travel / 2
        radius = min(spec.radius, float(0.5 - half_way.max()) / clips.TIP)
        margin = clips.TIP * radius + half_way
        centre = np.clip(spec.centre, margin, 1 - margin)
        return replace(spec, radius=radius, centre=tuple(float(x) for x in centre))

    return [inside(spec) for spec in clips.specs(count, seed, chosen)]


def write(folder: Path, count: int = STARS, old: int = OLD, size: int = 80, frames: int = 8, fps: int = 8) -> Path:
    """Write clips of stars, and of old shapes, with their captions to a folder; its table, for `osjax finetune`.

    count: of stars. old: clips of the demo's shapes, as it trained on them. size: pixels of a side. frames, fps: of a
    clip.
    """
    seen, _ = clips.split()
    return clips.write_clips(folder, [*specs(count), *clips.specs(old, 1, seen)], size, frames, fps)
