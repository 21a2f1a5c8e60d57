"""Which bucket a step trains on: a pure function of (seed, step), so every host agrees without a message."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from osjax.data.buckets import Bucket
from osjax.errors import UserError


@dataclass(frozen=True)
class Plan:
    """One pass over the data. order: the bucket of every batch, sorted. members: sample indices of each bucket."""

    members: Mapping[Bucket, Sequence[int]]
    batch_sizes: Mapping[Bucket, int]
    order: tuple[Bucket, ...]
    seed: int

    def bucket(self, step: int) -> Bucket:
        """The bucket of a step. Each pass visits every bucket as often as it fills batches, in an order of its own."""
        turn, place = divmod(step, len(self.order))
        return self.order[_rng(self.seed, turn).permutation(len(self.order))[place]]

    def indices(self, step: int) -> list[int]:
        """The samples of a step's batch, of all processes together. None comes twice within a pass."""
        turn, place = divmod(step, len(self.order))
        order = _rng(self.seed, turn).permutation(len(self.order))
        bucket = self.order[order[place]]
        nth = sum(self.order[at] == bucket for at in order[:place])
        samples = self.members[bucket]
        shuffled = _rng(self.seed, turn, self.order.index(bucket) + 1).permutation(len(samples))
        size = self.batch_sizes[bucket]
        return [samples[at] for at in shuffled[nth * size : (nth + 1) * size]]


def plan(members: Mapping[Bucket, Sequence[int]], batch_sizes: Mapping[Bucket, int], seed: int) -> Plan:
    """Plan of whole batches; what is left of a bucket waits for another pass's shuffle. UserError if none is full."""
    order = tuple(b for b in sorted(members) for _ in range(len(members[b]) // batch_sizes[b]))
    if not order:
        filled = ", ".join(f"{b.resolution} x {b.num_frames}: {len(m)} of {batch_sizes[b]}" for b, m in members.items())
        raise UserError(f"no bucket fills a batch ({filled or 'no sample fits'}): add clips or lower the batch sizes")
    return Plan(members, batch_sizes, order, seed)


def batches_in_order(
    members: Mapping[Bucket, Sequence[int]], batch_sizes: Mapping[Bucket, int], replicas: int, drop_last: bool
) -> list[tuple[Bucket, list[int]]]:
    """Every batch once, unshuffled, bucket by bucket, for evaluation; the n-th goes to replica n modulo `replicas`.

    drop_last: leave out what does not fill a batch or does not serve all replicas; otherwise batches are filled up
    from the bucket's own start (once over: a tiny bucket stays short), and the list from its first buckets' next
    samples, which may be none. Source: Open-Sora opensora/datasets/sampler.py.
    """
    filled = {b: _whole(list(m), batch_sizes[b], drop_last) for b, m in members.items()}
    order = [b for b in filled for _ in range(len(filled[b]) // batch_sizes[b])]
    if drop_last:
        order = order[: len(order) - len(order) % replicas]
    elif len(order) % replicas:
        order += order[: replicas - len(order) % replicas]
    out, used = [], dict.fromkeys(filled, 0)
    for bucket in order:
        start, size = used[bucket], batch_sizes[bucket]
        out.append((bucket, filled[bucket][start : start + size]))
        used[bucket] += size
    return out


def _whole(samples: list[int], size: int, drop_last: bool) -> list[int]:
    left = len(samples) % size
    if not left:
        return samples
    return samples[:-left] if drop_last else samples + samples[: size - left]


def _rng(*numbers: int) -> np.random.Generator:
    return np.random.default_rng(numbers)
