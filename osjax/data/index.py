"""What the schedule must know of every clip, 12 bytes each, in a file that is mapped into memory rather than read.

Pages come from the file as they are used, and all processes of a host share them. What a loader holds of a data set are
the bucket members that follow from it, 4 bytes a clip.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from osjax import atomic
from osjax.data.buckets import Bucket, Buckets
from osjax.errors import UserError
from osjax.types import Json

ENTRY = np.dtype([("num_frames", "<u4"), ("height", "<u2"), ("width", "<u2"), ("fps", "<f4")])
FILE = "index.npy"
CHUNK = 1 << 18  # clips at a time


def write(path: Path, chunks: Iterable[Mapping[str, Any]]) -> None:
    """Write an index to the file `path`. chunks: of columns num_frames, height, width (pixels) and fps."""
    count = 0
    with atomic.complete(path) as partial, partial.open("wb") as file:
        np.lib.format.write_array_header_2_0(file, _header(0))
        for columns in chunks:
            entries = np.empty(len(columns["fps"]), ENTRY)
            for name in ENTRY.names:
                entries[name] = columns[name]
            entries.tofile(file)
            count += len(entries)
        file.seek(0)
        np.lib.format.write_array_header_2_0(file, _header(count))


def _header(count: int) -> Json:
    # NumPy pads headers so that a longer shape fits in the same place.
    return {"descr": np.lib.format.dtype_to_descr(ENTRY), "fortran_order": False, "shape": (count,)}


def open_index(path: Path) -> np.ndarray:
    """The entries of the index file `path`, (clips,) of dtype ENTRY, mapped. UserError where it is none."""
    try:
        entries = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy reads the header as Python's tokens, whose errors are many
        raise UserError(f"index {path} cannot be read ({error}): delete it, it is made anew") from error
    if entries.dtype != ENTRY:
        raise UserError(f"index {path} has other columns: delete it, it is made anew")
    return entries


@dataclass(frozen=True)
class Drawing:
    """Clips, of one size, length and rate, that draw a bucket in every pass. odds: see `Buckets.odds`."""

    sample: tuple[int, int, int, float]
    indices: np.ndarray
    odds: Mapping[Bucket | None, float]


@dataclass(frozen=True)
class Grouped:
    """The clips of an index by bucket: those of which it is certain, and those that draw it in every pass.

    certain: rising indices, uint32. drawing: the others. buckets, seed: as `group` takes them.
    """

    certain: Mapping[Bucket, np.ndarray]
    drawing: Sequence[Drawing]
    buckets: Buckets
    seed: int

    @property
    def possible(self) -> set[Bucket]:
        """The buckets that clips may be in."""
        drawn = {bucket for group in self.drawing for bucket in group.odds if bucket is not None}
        return drawn | set(self.certain)

    def members(self, turn: int) -> dict[Bucket, np.ndarray]:
        """Indices of clips by bucket, uint32, rising, in the pass number `turn`, counted from 0."""
        # Each clip's own generator draws the first pass, as the original draws its first; that takes 10 us a clip, too
        # long for a wait between two steps. The following ones draw from the odds, a thousand times as fast.
        draw = self._first if turn == 0 else self._following
        drawn: dict[Bucket, list[np.ndarray]] = {}
        for number, group in enumerate(self.drawing, 1):
            for bucket, indices in draw(group, number, turn):
                drawn.setdefault(bucket, []).append(indices)
        out = dict(self.certain)
        for bucket, pieces in drawn.items():
            out[bucket] = np.sort(np.concatenate([*pieces, self.certain.get(bucket, pieces[0][:0])]))
        return out

    def _first(self, group: Drawing, number: int, turn: int) -> Iterator[tuple[Bucket, np.ndarray]]:
        drawn: dict[Bucket | None, list[int]] = {}
        for at in group.indices.tolist():
            bucket = self.buckets.find(*group.sample, seed=self.seed + at * self.buckets.count)
            drawn.setdefault(bucket, []).append(at)
        yield from ((bucket, np.array(some, np.uint32)) for bucket, some in drawn.items() if bucket is not None)

    def _following(self, group: Drawing, number: int, turn: int) -> Iterator[tuple[Bucket, np.ndarray]]:
        outcomes = list(group.odds)
        drawn = np.random.default_rng((self.seed, turn, number)).random(len(group.indices))
        # The last outcome takes what rounding leaves of 1.
        which = np.searchsorted(np.cumsum(list(group.odds.values()))[:-1], drawn, side="right")
        for n, bucket in enumerate(outcomes):
            if bucket is not None and (which == n).any():
                yield bucket, group.indices[which == n]


def group(entries: np.ndarray, buckets: Buckets, seed: int) -> Grouped:
    """The clips of an index by bucket. Clips of the same size, length and rate share one search.

    entries: of an index. buckets: the rules. seed: of the draws; in the first pass the clip number n has those of
    seed + n * buckets.count.
    """
    parts: dict[bytes, list[np.ndarray]] = {}
    for start in range(0, len(entries), CHUNK):
        chunk = np.ascontiguousarray(entries[start : start + CHUNK])
        kinds, which = np.unique(chunk.view(f"V{ENTRY.itemsize}"), return_inverse=True)
        order = np.argsort(which, kind="stable")
        places = np.split(order, np.cumsum(np.bincount(which, minlength=len(kinds)))[:-1])
        for kind, part in zip(kinds, places, strict=True):
            parts.setdefault(kind.tobytes(), []).append((part + start).astype(np.uint32))
    certain: dict[Bucket, list[np.ndarray]] = {}
    drawing = []
    for key in sorted(parts):
        kind, indices = np.frombuffer(key, ENTRY)[0], np.concatenate(parts.pop(key))
        sample = tuple(kind[name].item() for name in ENTRY.names)
        odds = buckets.odds(*sample)
        if len(odds) > 1:
            drawing.append(Drawing(sample, indices, odds))
        else:
            (bucket,) = odds
            if bucket is not None:
                certain.setdefault(bucket, []).append(indices)
    return Grouped({bucket: _risen(certain.pop(bucket)) for bucket in sorted(certain)}, drawing, buckets, seed)


def _risen(pieces: list[np.ndarray]) -> np.ndarray:
    whole = np.concatenate(pieces)
    whole.sort()  # in place: there may be very many
    return whole
