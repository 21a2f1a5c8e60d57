"""Batches whose shape changes from step to step, as the schedule of buckets says."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grain
import numpy as np

from osjax.data import workers as processes
from osjax.data.buckets import Bucket
from osjax.data.loader import BatchIterator, ClipReader
from osjax.data.schedule import Plan
from osjax.errors import UserError

log = logging.getLogger(__name__)
STEPS = 2**31  # more than any run; grain wants a length
BROKEN = "broken"  # travels with a batch from a worker: index -> path of clips that were replaced


def batches(
    source: Sequence[dict[str, Any]],
    plan: Plan,
    shape: Callable[[Bucket], tuple[int, int, int]],
    *,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 2,
    workers: int = 0,
    timeout_s: float = 600.0,
    first_step: int = 0,
    fps_max: float | None = None,
    random_start: bool = True,
    antialias: bool = False,
    state_fps: bool = False,
) -> "CountedBatches":
    """Endless batches {"video" (B, T, H, W, 3) in [-1, 1], "text", "index"}; the n-th is that of step first_step + n.

    shape: (frames, height, width) of a bucket, such as `Buckets.shape`. fps_max: give that of the `Buckets` which the
    plan was made with, so that clips have the frames it counted on. random_start, antialias, state_fps: see
    `ClipReader`. workers: processes that read, instead of threads; timeout_s: for a batch of theirs.
    Every process reads its share of each batch and agrees on the bucket without a message. A clip that does not
    decode is replaced by one of its bucket. UserError when a batch size does not divide over the processes.
    """
    options = {"fps_max": fps_max, "random_start": random_start, "antialias": antialias, "state_fps": state_fps}
    read_one = ReadClip({b: ClipReader(source, *shape(b), members=plan.members[b], **options) for b in plan.buckets})
    place = {"process_index": process_index, "process_count": process_count}
    return planned(
        plan, read_one, threads=threads, workers=workers, timeout_s=timeout_s, first_step=first_step, **place
    )


@dataclass(frozen=True)
class ReadClip:
    """Reads with the reader of a bucket."""

    readers: Mapping[Bucket, ClipReader]

    def __call__(self, bucket: Bucket, index: int, rng: np.random.Generator) -> dict[str, Any]:
        return self.readers[bucket](index, rng)

    @property
    def broken(self) -> dict[int, str]:
        return {index: path for reader in list(self.readers.values()) for index, path in reader.broken.items()}


@dataclass(frozen=True)
class ReadStep:
    """This process's rows of the batch of a step, counted from first_step."""

    plan: Plan
    read_one: Callable[[Bucket, int, np.random.Generator], dict[str, Any]]
    process_index: int
    process_count: int
    first_step: int = 0

    def __call__(self, step: int) -> dict[str, Any]:
        step = self.first_step + int(step)
        bucket = self.plan.bucket(step)
        mine = self.plan.indices(step)[self.process_index :: self.process_count]
        # Draws belong to (seed, step, clip): the same after a restart and for any number of processes.
        examples = [self.read_one(bucket, i, np.random.default_rng((self.plan.seed, step, i))) for i in mine]
        batch = {name: np.stack([example[name] for example in examples]) for name in examples[0]}
        return {**batch, BROKEN: dict(getattr(self.read_one, "broken", {}))}


class CountedBatches(BatchIterator):
    """`broken`: index -> path of the clips that this process replaced so far."""

    def __init__(self, dataset: Any):
        super().__init__(dataset)
        self.broken: dict[int, str] = {}

    def __next__(self) -> dict[str, Any]:
        batch = super().__next__()
        self.broken |= batch.pop(BROKEN)
        return batch


def planned(
    plan: Plan,
    read_one: Callable[[Bucket, int, np.random.Generator], dict[str, Any]],
    *,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 2,
    workers: int = 0,
    timeout_s: float = 600.0,
    first_step: int = 0,
) -> CountedBatches:
    """Endless batches of what `read_one(bucket, index of a sample, its generator)` gives, as the plan says.

    workers: see `batches`; read_one must then be picklable.
    """
    for bucket, size in plan.batch_sizes.items():
        if size % process_count:
            raise UserError(
                f"batch {size} of {bucket.resolution} x {bucket.num_frames} does not divide over {process_count} "
                "processes: use a multiple of it"
            )
    read = ReadStep(plan, read_one, process_index, process_count, first_step)
    if workers:
        return CountedBatches(processes.Ahead(read, workers, ahead=workers, timeout_s=timeout_s))
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return CountedBatches(grain.MapDataset.range(STEPS).map(read).to_iter_dataset(options))
