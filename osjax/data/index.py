"""What the schedule must know of every clip, 12 bytes each, in a file that is mapped into memory rather than read.

The bucket members that follow from it are mapped files too, 4 bytes a clip, so that a loader's own memory does not
grow with the data set: pages come from the file as they are used, and all processes of a host share them.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from osjax.data.buckets import Bucket, Buckets, Certain
from osjax.errors import UserError

ENTRY = np.dtype([("num_frames", "<u4"), ("height", "<u2"), ("width", "<u2"), ("fps", "<f4")])
FILE = "index.npy"
CHUNK = 1 << 18  # clips at a time


def write(path: Path, chunks: Iterable[Mapping[str, Any]]) -> None:
    """Write an index from chunks of columns num_frames, height, width and fps. Complete or not there."""
    path = Path(path)
    part = path.with_suffix(".part")
    count = 0
    with part.open("wb") as file:
        np.lib.format.write_array_header_2_0(file, _header(0))
        for columns in chunks:
            entries = np.empty(len(columns["fps"]), ENTRY)
            for name in ENTRY.names:
                entries[name] = columns[name]
            entries.tofile(file)
            count += len(entries)
        file.seek(0)
        np.lib.format.write_array_header_2_0(file, _header(count))
    part.replace(path)


def _header(count: int) -> dict[str, Any]:
    # NumPy pads headers so that a longer shape fits in the same place.
    return {"descr": np.lib.format.dtype_to_descr(ENTRY), "fortran_order": False, "shape": (count,)}


def open_index(path: Path) -> np.ndarray:
    """The entries of an index, mapped."""
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"index {path} cannot be read ({error}): delete it, it is made anew") from error
    if found.dtype != ENTRY:
        raise UserError(f"index {path} has other columns: delete it, it is made anew")
    return found


def of_parquet(table: Path) -> Iterator[dict[str, np.ndarray]]:
    """Chunks for `write` from a Parquet table, a row group at a time."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(table) as file:
        missing = [name for name in ENTRY.names if name not in file.schema_arrow.names]
        if missing:
            raise UserError(f"table {table} lacks the column {', '.join(missing)}: probe its clips first")
        for batch in file.iter_batches(CHUNK, columns=list(ENTRY.names)):
            yield {name: batch.column(name).to_numpy(zero_copy_only=False) for name in ENTRY.names}


def group(entries: np.ndarray, buckets: Buckets, seed: int, folder: Path | None = None) -> dict[Bucket, np.ndarray]:
    """Indices of clips by bucket, uint32, equal to those of `Buckets.group`.

    folder: keeps the result there, mapped, and takes it from there when asked for the same again. Clips of the same
    size, length and rate share one search, except where a bucket keeps only some of them, which each clip draws.
    """
    if folder is None:
        found: dict[Bucket, list[np.ndarray]] = {}
        for bucket, members in _assigned(entries, buckets, seed):
            found.setdefault(bucket, []).append(members)
        return {bucket: np.concatenate(parts) for bucket, parts in found.items()}
    asked = repr((len(entries), _fingerprint(entries), buckets.rules, buckets.multiple, buckets.fps_max, seed))
    place = Path(folder) / hashlib.sha256(asked.encode()).hexdigest()[:16]
    done = place / "buckets.json"  # written last
    if not done.is_file():
        place.mkdir(parents=True, exist_ok=True)
        _store(_assigned(entries, buckets, seed), place, done)
    return {
        Bucket(*bucket): np.memmap(place / name, "<u4", "r", shape=(count,))
        for bucket, name, count in json.loads(done.read_text())
    }


def _store(assigned: Iterable[tuple[Bucket, np.ndarray]], place: Path, done: Path) -> None:
    files, counts = {}, {}
    for bucket, members in assigned:
        if bucket not in files:
            files[bucket] = (place / f"{len(files)}.u4").open("wb")
        members.astype("<u4").tofile(files[bucket])
        counts[bucket] = counts.get(bucket, 0) + len(members)
    for file in files.values():
        file.close()
    listed = [(list(bucket), Path(file.name).name, counts[bucket]) for bucket, file in files.items()]
    part = done.with_suffix(".part")
    part.write_text(json.dumps(listed))
    part.replace(done)


def _fingerprint(entries: np.ndarray) -> str:
    sums = hashlib.sha256()
    for start in range(0, len(entries), CHUNK):
        sums.update(np.ascontiguousarray(entries[start : start + CHUNK]).tobytes())
    return sums.hexdigest()


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
