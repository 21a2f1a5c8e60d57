"""What the schedule must know of every clip, 12 bytes each, in a file that is mapped into memory rather than read.

Pages come from the file as they are used, and all processes of a host share them. What a loader holds of a data set are
the bucket members that follow from it, 4 bytes a clip.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from osjax import atomic
from osjax.data.buckets import Bucket, Buckets, Certain
from osjax.errors import UserError

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


def _header(count: int) -> dict[str, Any]:
    # NumPy pads headers so that a longer shape fits in the same place.
    return {"descr": np.lib.format.dtype_to_descr(ENTRY), "fortran_order": False, "shape": (count,)}


def open_index(path: Path) -> np.ndarray:
    """The entries of the index file `path`, (clips,) of dtype ENTRY, mapped. UserError where it is none."""
    try:
        entries = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"index {path} cannot be read ({error}): delete it, it is made anew") from error
    if entries.dtype != ENTRY:
        raise UserError(f"index {path} has other columns: delete it, it is made anew")
    return entries


def group(entries: np.ndarray, buckets: Buckets, seed: int) -> dict[Bucket, np.ndarray]:
    """Indices of clips by bucket, uint32, rising: those that `Buckets.find` gives one by one.

    entries: of an index. seed: of the draws; the clip number n has those of seed + n * buckets.count. Clips of the same
    size, length and rate share one search, except where a bucket keeps only some of them, which each clip draws.
    """
    members: dict[Bucket, list[np.ndarray]] = {}
    for bucket, some in _assigned(entries, buckets, seed):
        members.setdefault(bucket, []).append(some)
    return {bucket: np.concatenate(parts) for bucket, parts in members.items()}


def _assigned(entries: np.ndarray, buckets: Buckets, seed: int) -> Iterator[tuple[Bucket, np.ndarray]]:
    """(bucket, rising indices), chunk by chunk."""
    known: dict[bytes, Certain | None] = {}
    for start in range(0, len(entries), CHUNK):
        chunk = np.ascontiguousarray(entries[start : start + CHUNK])
        kinds, which = np.unique(chunk.view(f"V{ENTRY.itemsize}"), return_inverse=True)
        order = np.argsort(which, kind="stable")
        parts = np.split(order, np.cumsum(np.bincount(which, minlength=len(kinds)))[:-1])
        members: dict[Bucket, list[np.ndarray]] = {}
        for kind, part in zip(kinds.view(ENTRY), parts, strict=True):
            sample = tuple(kind[name].item() for name in ENTRY.names)
            key = kind.tobytes()
            if key not in known:
                known[key] = buckets.find_certain(*sample)
            certain = known[key]
            if certain is None:
                for at in part:
                    bucket = buckets.find(*sample, seed=seed + (start + int(at)) * buckets.count)
                    if bucket is not None:
                        members.setdefault(bucket, []).append(np.array([at]))
            elif certain.bucket is not None:
                members.setdefault(certain.bucket, []).append(part)
        for bucket, pieces in members.items():
            yield bucket, (np.sort(np.concatenate(pieces)) + start).astype(np.uint32)
