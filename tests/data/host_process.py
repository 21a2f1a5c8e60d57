"""One host of a loader: `python -m tests.data.host_process DATA_SET STATE INDEX COUNT STEPS` prints its batches."""

import hashlib
import json
import sys
import time
from pathlib import Path

from osjax.data import bucketed, buckets, dataset, index, loader, schedule

RULES = {"64px": {1: buckets.Rule(1.0, 4), 4: buckets.Rule(1.0, 2), 8: buckets.Rule(0.6, 2)}}
SEED = 5


def batches(data_set: Path, process_index: int = 0, process_count: int = 1):
    source = dataset.open_source(data_set)
    table = buckets.Buckets(RULES, 16, 24)
    grouped = index.group(source.index(), table, SEED)
    plan = schedule.Plan(grouped.members, {b: table.batch_size(b) for b in grouped.possible}, SEED)
    where = {"process_index": process_index, "process_count": process_count}
    windows = {bucket: loader.Window(*table.shape(bucket), fps_max=24, random_start=True) for bucket in plan.buckets}
    return bucketed.batches(source, plan, windows, readers=bucketed.Readers(threads=1), **where)


def rows(batch) -> list:
    """What is in a batch: clips, and a hash of the pixels of each."""
    sums = [hashlib.sha256(pixels.tobytes()).hexdigest()[:16] for pixels in batch["video"]]
    return [[int(i), str(text), pixels] for i, text, pixels in zip(batch["index"], batch["text"], sums, strict=True)]


if __name__ == "__main__":
    data_set, state, number, count, steps = Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:])
    iterator = batches(data_set, number, count)
    if state.exists():
        iterator.set_state(json.loads(state.read_text()))
    for _ in range(steps):
        before = iterator.get_state()
        print(json.dumps({"state": before, "rows": rows(next(iterator))}), flush=True)
        time.sleep(0.05)
