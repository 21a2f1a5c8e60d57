"""Batches whose shape changes from step to step, as the schedule of buckets says."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grain
import numpy as np

from osjax.data.buckets import Bucket
from osjax.data.loader import BatchIterator, ClipReader
from osjax.data.schedule import Plan
from osjax.errors import UserError

STEPS = 2**31  # more than any run; grain wants a length


def batches(
    source: Sequence[dict[str, Any]],
    plan: Plan,
    shape: Callable[[Bucket], tuple[int, int, int]],
    *,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 2,
    first_step: int = 0,
    fps_max: float | None = None,
    random_start: bool = True,
) -> BatchIterator:
    """Endless batches {"video" (B, T, H, W, 3) in [-1, 1], "text", "index"}; the n-th is that of step first_step + n.

    shape: (frames, height, width) of a bucket, such as `Buckets.shape`. fps_max: give that of the `Buckets` which the
    plan was made with, so that clips have the frames it counted on. random_start: see `ClipReader`.
    Every process reads its share of each batch and agrees on the bucket without a message. UserError when a batch
    size does not divide over the processes.
    """
    readers: Mapping[Bucket, ClipReader] = {
        b: ClipReader(source, *shape(b), fps_max=fps_max, random_start=random_start) for b in set(plan.order)
    }

    def read(bucket: Bucket, index: int, rng: np.random.Generator) -> dict[str, Any]:
        return readers[bucket](index, rng)

    place = {"process_index": process_index, "process_count": process_count}
    return planned(plan, read, threads=threads, first_step=first_step, **place)


def planned(
    plan: Plan,
    read_one: Callable[[Bucket, int, np.random.Generator], dict[str, Any]],
    *,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 2,
    first_step: int = 0,
) -> BatchIterator:
    """Endless batches of what `read_one(bucket, index of a sample, its generator)` gives, as the plan says."""
    for bucket, size in plan.batch_sizes.items():
        if size % process_count:
            raise UserError(
                f"batch {size} of {bucket.resolution} x {bucket.num_frames} does not divide over {process_count} "
                "processes: use a multiple of it"
            )

    def read(step: int) -> dict[str, Any]:
        bucket = plan.bucket(int(step))
        mine = plan.indices(int(step))[process_index::process_count]
        # Draws belong to (seed, step, clip): the same after a restart and for any number of processes.
        examples = [read_one(bucket, i, np.random.default_rng((plan.seed, int(step), i))) for i in mine]
        return {name: np.stack([example[name] for example in examples]) for name in examples[0]}

    steps = grain.MapDataset.range(first_step, STEPS).map(read)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return BatchIterator(steps.to_iter_dataset(options), lambda batch: batch)
