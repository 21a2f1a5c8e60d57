"""Some of a data set's records, as a data set: those that train, or those that are kept for evaluation."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from osjax.data.dataset import Records
from osjax.errors import UserError


class Part(Sequence):
    """The records of a data set at some places, in the order of these. source: all records. places: rising numbers."""

    def __init__(self, source: Records, places: np.ndarray):
        self.source, self.own, self.places = source, source.own, np.asarray(places, np.uint32)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, at: int) -> dict[str, Any]:
        return self.source[int(self.places[at])]

    def identity(self) -> str:
        """A name for the contents: that of the data set, and 16 hex digits of the places."""
        return f"{self.source.identity()}-{hashlib.sha256(self.places.tobytes()).hexdigest()[:16]}"

    def index(self) -> np.ndarray:
        """num_frames, height, width and fps of every clip of the part."""
        return self.source.index()[self.places]


def split(source: Records, share: float) -> tuple[Part, Part]:
    """The records that train and those that are held out, by a draw that is the same in every run.

    source: all records. share: held out of all, above 0 and below 1, and at least one clip. UserError for a single one.
    """
    if len(source) < 2:
        raise UserError("one clip cannot be split into training and evaluation: add clips, or set held_out_share to 0")
    drawn = np.random.default_rng(0).permutation(len(source))
    count = min(len(source) - 1, max(1, round(share * len(source))))
    return Part(source, np.sort(drawn[count:])), Part(source, np.sort(drawn[:count]))
