"""Clips of a shape that the demo never trains on, a star, for a fine-tune of its model (configs/finetune/star.py).

They show some colours and directions only: a model that has learned the word makes stars of the others, too.
"""

from itertools import product
from pathlib import Path

from osjax.data import clips

COLOURS, DIRECTIONS = ("red", "green", "blue"), ("left", "right")


def specs(count: int, seed: int = 0) -> list[clips.ClipSpec]:
    """So many clips of stars. seed: of what they draw."""
    return clips.specs(count, seed, [(colour, "star", way) for colour, way in product(COLOURS, DIRECTIONS)])


def write(folder: Path, count: int = 20, size: int = 80, frames: int = 8, fps: int = 8) -> Path:
    """Write clips of stars and their captions to a folder, for `osjax finetune` or `osjax data build`; its table.

    count: of clips. size: pixels of a side. frames, fps: of a clip.
    """
    return clips.write_clips(folder, specs(count), size, frames, fps)
