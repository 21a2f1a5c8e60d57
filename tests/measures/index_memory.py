"""What a loader holds of ten million clips: `python -m tests.measures.index_memory [CLIPS]`.

Writes the index of a synthetic table, sorts it into the buckets of the original's 256px stage, plans, and asks for
steps all over the plan. Memory is that of the process without the pages of mapped files, which are the kernel's to
drop, and with them.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from osjax.data import buckets, index, schedule

RULES = {"256px": {1: buckets.Rule(1.0, 50), **{t: buckets.Rule(1.0, 12) for t in (5, 33, 65, 97, 129)}}}
SIZES = ((720, 1280), (1080, 1920), (1280, 720), (1024, 1024), (810, 1080), (544, 960))


def memory() -> dict[str, float]:
    """Bytes of this process: of its own, and of mapped files that are in memory."""
    found = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(found[name].split()[0]) * 1024 for name in ("RssAnon", "RssFile")}


def columns(count: int) -> Iterator[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    for start in range(0, count, 1 << 20):
        n = min(1 << 20, count - start)
        size = np.array(SIZES)[rng.integers(len(SIZES), size=n)]
        fps = np.array([23.976, 24, 25, 29.97], np.float32)[rng.integers(4, size=n)]
        yield {"num_frames": rng.integers(48, 240, n), "height": size[:, 0], "width": size[:, 1], "fps": fps}


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        before = memory()
        marks = [("write the index", time.perf_counter())]
        index.write(folder / index.FILE, columns(count))
        entries = index.open_index(folder / index.FILE)
        marks.append(("sort into buckets", time.perf_counter()))
        table = buckets.Buckets(RULES, 16, 24)
        grouped = index.group(entries, table, 0)
        plan = schedule.Plan(grouped.members, {b: table.batch_size(b) for b in grouped.possible}, 0)
        marks.append(("1000 steps", time.perf_counter()))
        rng = np.random.default_rng(0)
        for step in rng.integers(3 * plan.pass_of(0).batches, size=1000):
            plan.indices(int(step))
        marks.append(("", time.perf_counter()))
        for (name, start), (_, end) in zip(marks, marks[1:], strict=False):
            print(f"{name}: {end - start:.2f} s")
        size = (folder / index.FILE).stat().st_size
        after = memory()
        fit = sum(map(len, plan.pass_of(0).members.values()))
        print(f"index: {size / count:.1f} bytes a clip; {fit} of {count} clips in buckets")
        for name in after:
            more = after[name] - before[name]
            print(f"{name}: {more / 1e6:.0f} MB more, {more / count:.1f} bytes a clip")


if __name__ == "__main__":
    main(int(float(sys.argv[1])) if len(sys.argv) > 1 else 10_000_000)
