"""Which clips a stage trains on: a table of its buckets, and those that are left out with what keeps them out."""

from collections.abc import Sequence

import numpy as np

from osjax.data import left_out
from osjax.data.buckets import Buckets
from osjax.parts.data import DataKeys
from osjax.plain_line import plain
from osjax.stages import data

NAMED = 10  # clips of one reason whose paths are told


def lines(source: data.Source, table: Buckets, keys: DataKeys, seed: int) -> list[str]:
    """The table of a stage's first pass over its clips, a line a bucket and a line a reason.

    source: of the clips. table: the buckets. keys: the stage's `data` group. seed: of the plan. UserError where no
    bucket fills a batch.
    """
    planned = data.plan(source, table, seed, fill=keys.fill)
    first, entries = planned.pass_of(0), source.index()
    rows = [("bucket", "frames", "aspect", "size", "clips", "batches", "")]
    for bucket, members in sorted(first.members.items()):
        frames, height, width = table.shape(bucket)
        count, size = first.counts.get(bucket, 0), planned.batch_sizes[bucket]
        said = count * size - len(members)
        note = f"{said} repeats" if said > 0 else f"{-said} wait for another pass" if count and said else ""
        cells = bucket.resolution, frames, bucket.aspect, f"{width}x{height}", len(members), f"{count} of {size}", note
        rows.append(tuple(map(str, cells)))
    out = left_out.reasons(entries, table, first, planned.batch_sizes)
    trained = len(entries) - sum(map(len, out.values()))
    told = [f"{trained} of {len(entries)} clips train, {first.batches} steps a pass", *_aligned(rows)]
    for reason, places in out.items():
        named = ", ".join(_name(source, entries, int(at)) for at in places[:NAMED])
        more = f" and {len(places) - NAMED} more" if len(places) > NAMED else ""
        told.append(f"left out, {len(places)} that {reason}: {named}{more}")
    return told


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _name(source: data.Source, entries: np.ndarray, at: int) -> str:
    """What a clip is called, with its size and length."""
    entry = entries[at]
    size = f"{entry['width']}x{entry['height']}, {entry['num_frames']} frames"
    try:
        path = source[at]["path"]
    except LookupError:  # not rendered yet
        return f"number {at} ({size})"
    return f"{plain(path.decode(errors='replace') if isinstance(path, bytes) else path)} ({size})"
