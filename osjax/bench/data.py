"""The data pipeline by itself: clips to batches, as a training process draws them."""

import tempfile
import time
from pathlib import Path

from jax.sharding import Mesh

from osjax.bench.measure import Measured
from osjax.parts import buckets
from osjax.parts.bench import BenchKeys
from osjax.stages import data


def measure(cfg: BenchKeys, mesh: Mesh) -> Measured:
    """Mean time of a batch of this process, over `cfg.repeats` batches after `cfg.warmup`.

    The mean, because threads decode ahead: one call may find its batch ready and the next may wait for two.
    """
    with tempfile.TemporaryDirectory() as folder:
        own = data.OwnData(cfg.data.source, cfg.clips, Path(folder))
        source = data.training_source(cfg.data, own)
        table = buckets.table(cfg.data.buckets, cfg.data.batch_per_device, cfg.data.fps_max, 1, mesh)
        rows = data.video_batches(source, table, cfg.data, cfg.seed)
        shapes = [next(rows)["video"].shape for _ in range(cfg.warmup)]
        seconds, clips = [], 0
        for _ in range(cfg.repeats):
            started = time.perf_counter()
            shapes.append(next(rows)["video"].shape)
            seconds.append(time.perf_counter() - started)
            clips += shapes[-1][0]
    mean = sum(seconds) / len(seconds)
    B, T, H, W, _ = shapes[-1]
    reads = data.readers(cfg.data, source)
    readers = f"{reads.workers} processes" if reads.workers else f"{reads.threads} threads"
    size = f"{B} x {T} frames of {W}x{H}, {readers}"
    return Measured("data", size, mean, min(seconds), max(seconds), cfg.repeats, per_s=1 / mean)
