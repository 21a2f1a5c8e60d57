"""What a loader holds of ten million clips: `python -m tests.measures.index_memory [CLIPS]`.

Writes a synthetic Parquet table, makes the index and the buckets of the original's 256px stage from it, plans, and asks
for steps all over the plan. Memory is that of the process without the pages of mapped files, which are the kernel's to
drop, and with them.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from osjax.data import buckets, index, schedule

RULES = {"256px": {1: buckets.Rule(1.0, 50), **{t: buckets.Rule(1.0, 12) for t in (5, 33, 65, 97, 129)}}}
SIZES = ((720, 1280), (1080, 1920), (1280, 720), (1024, 1024), (810, 1080), (544, 960))


def memory() -> dict[str, float]:
    """Bytes of this process: of its own, and of mapped files that are in memory."""
    found = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(found[name].split()[0]) * 1024 for name in ("RssAnon", "RssFile")}


def write_table(path: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    schema = pa.schema({**dict.fromkeys(("num_frames", "height", "width"), pa.int32()), "fps": pa.float32()})
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, count, 1 << 20):
            n = min(1 << 20, count - start)
            size = np.array(SIZES)[rng.integers(len(SIZES), size=n)]
            rates = np.array([23.976, 24, 25, 29.97], np.float32)[rng.integers(4, size=n)]
            columns = [rng.integers(48, 240, n), size[:, 0], size[:, 1], rates]
            writer.write_table(pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema))


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write_table(folder / "clips.parquet", count)
        before = memory()
        marks = [("write the index", time.perf_counter())]
        index.write(folder / index.FILE, index.of_parquet(folder / "clips.parquet"))
        entries = index.open_index(folder / index.FILE)
        marks.append(("sort into buckets, once", time.perf_counter()))
        table = buckets.Buckets(RULES, 16, 24)
        index.group(entries, table, 0, folder / "buckets")
        marks.append(("open again", time.perf_counter()))
        members = index.group(entries, table, 0, folder / "buckets")
        plan = schedule.plan(members, {bucket: table.batch_size(bucket) for bucket in members}, 0)
        marks.append(("1000 steps", time.perf_counter()))
        rng = np.random.default_rng(0)
        for step in rng.integers(3 * plan.batches_per_pass, size=1000):
            plan.indices(int(step))
        marks.append(("", time.perf_counter()))
        for (name, start), (_, end) in zip(marks, marks[1:], strict=False):
            print(f"{name}: {end - start:.2f} s")
        size = sum(path.stat().st_size for path in (folder / index.FILE, *(folder / "buckets").rglob("*.u4")))
        after = memory()
        print(f"files: {size / count:.1f} bytes a clip, {sum(map(len, members.values()))} of {count} clips in buckets")
        for name in after:
            more = after[name] - before[name]
            print(f"{name}: {more / 1e6:.0f} MB more, {more / count:.1f} bytes a clip")


if __name__ == "__main__":
    main(int(float(sys.argv[1])) if len(sys.argv) > 1 else 10_000_000)
