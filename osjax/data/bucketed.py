"""Batches whose shape changes from step to step, as the schedule of buckets says."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import grain
import numpy as np

from osjax.data.buckets import Bucket
from osjax.data.loader import ClipReader, ClipWorkers, Window
from osjax.data.schedule import Batch, Plan
from osjax.errors import UserError
from osjax.types import Row

STEPS = 2**31  # more than any run; grain wants a length


@dataclass(frozen=True)
class Readers:
    """Who reads clips: so many threads of this process or, where `workers` is not 0, so many processes instead.

    timeout_s: seconds that a clip may take in a process, which is then replaced, and the clip taken as undecodable.
    ahead_gb: gigabytes of batches that may wait to be used, at the size of the largest bucket; one always may.
    """

    threads: int = 2
    workers: int = 0
    timeout_s: float = 60.0
    ahead_gb: float = 4.0

    def of(self, source: Sequence[Row]) -> ClipWorkers | None:
        """The processes that read the clips of `source`; None where threads do."""
        return ClipWorkers(source, self.workers, self.timeout_s) if self.workers else None

    def __post_init__(self):
        if self.threads < 1 or self.workers < 0 or self.timeout_s <= 0:
            raise UserError(
                f"threads={self.threads}, workers={self.workers}, timeout_s={self.timeout_s:g} read no clip: give 1 or "
                "more threads, 0 or more workers and some seconds",
                status=2,
            )

    @property
    def count(self) -> int:
        """Batches that are read at once."""
        return self.workers or self.threads

    def ahead(self, row_bytes: Mapping[Bucket, int], plan: Plan, process_count: int = 1) -> int:
        """Number of batches that may wait to be used: two of each reader, as far as `ahead_gb` lets them.

        row_bytes: of a row of each bucket. plan: says how many rows a batch has. process_count: of hosts that share it.
        """
        largest = max(size * plan.batch_sizes[bucket] // process_count for bucket, size in row_bytes.items())
        return max(1, min(2 * self.count, int(self.ahead_gb * 1e9 // max(1, largest))))


def batches(
    source: Sequence[Row],
    plan: Plan,
    windows: Mapping[Bucket, Window],
    *,
    process_index: int = 0,
    process_count: int = 1,
    readers: Readers = Readers(),
) -> grain.DatasetIterator:
    """Endless batches {"video" (B, T, H, W, 3), "text", "index"}; the n-th is that of step n.

    Pixels are levels, see `loader.read_record`.
    source: records of clips. plan: which of them a step trains on. windows: what examples of a bucket show; their
    fps_max is that of the `Buckets` which the plan was made with, so that clips have the frames it counted on.
    process_index, process_count: which hosts' share of each batch this is; all agree on the bucket without a message.
    readers: who reads; batches are the same whoever does. A clip that does not decode is replaced by one of its
    bucket. UserError when a batch size does not divide over the hosts, or MAX_REPLACEMENTS clips in a row do not
    decode.
    """
    workers = readers.of(source)
    read = {bucket: ClipReader(source, windows[bucket], workers) for bucket in plan.buckets}

    def read_one(batch: Batch, index: int, rng: np.random.Generator) -> Row:
        return read[batch.bucket](index, rng, batch.members)

    ahead = readers.ahead({bucket: windows[bucket].bytes for bucket in plan.buckets}, plan, process_count)
    place = {"process_index": process_index, "process_count": process_count}
    return planned(plan, read_one, threads=readers.count, ahead=ahead, **place)


def planned(
    plan: Plan,
    read_one: Callable[[Batch, int, np.random.Generator], Row],
    *,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 2,
    ahead: int | None = None,
) -> grain.DatasetIterator:
    """Endless batches of what `read_one(batch, index of a sample, its generator)` gives, as the plan says.

    process_index, process_count: see `batches`. threads: batches that are read at once. ahead: batches that may wait to
    be used; None for two of each thread. `get_state` and `set_state`
    of the iterator carry its place as plain JSON values.
    """
    for bucket, size in plan.batch_sizes.items():
        if size % process_count:
            raise UserError(
                f"batch {size} of {bucket.resolution} x {bucket.num_frames} does not divide over {process_count} "
                "processes: use a multiple of it"
            )

    def read(step: int) -> Row:
        batch = plan.batch(step)
        mine = batch.indices[process_index::process_count]  # of the batch that all processes share
        # Draws belong to (seed, step, clip): the same after a restart and for any number of processes.
        examples = [read_one(batch, i, np.random.default_rng((plan.seed, int(step), i))) for i in mine]
        return {name: np.stack([example[name] for example in examples]) for name in examples[0]}

    # A batch is a pure function of its step, so the step is all that the iterator's state holds: whatever was read
    # ahead is simply read again after a restart.
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead or 2 * threads)
    return iter(grain.MapDataset.range(STEPS).map(read).to_iter_dataset(options))
