"""Which bucket a step trains on: a pure function of (seed, step), so every host agrees without a message."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from grain.experimental import index_shuffle

from osjax.data.buckets import Bucket
from osjax.errors import UserError

ROUNDS = 4  # of the block cipher behind a permutation
SMALL = 4096  # lengths whose permutation is written out: the cipher is slow for short ones


@dataclass(frozen=True)
class Plan:
    """Which samples every step trains on. members: indices of each bucket's samples, such as memory-mapped arrays.

    counts: whole batches that each bucket fills in one pass over the data.
    Nothing is stored per batch or per sample: orders are permutations that are computed at one place at a time.
    """

    members: Mapping[Bucket, Sequence[int]]
    batch_sizes: Mapping[Bucket, int]
    counts: Mapping[Bucket, int]
    seed: int

    @cached_property
    def buckets(self) -> tuple[Bucket, ...]:
        """The buckets that fill a batch, in an order that every host finds."""
        return tuple(sorted(self.counts))

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum([self.counts[b] for b in self.buckets])

    @property
    def batches_per_pass(self) -> int:
        """Steps of one pass over the data."""
        return int(self._ends[-1])

    def _place(self, step: int) -> tuple[int, Bucket, int]:
        """(pass, bucket, which of the bucket's batches in that pass)."""
        # Think of the batches of one pass in a row, bucket after bucket; `_ends` says where each bucket's end. Steps
        # visit that row in a permuted order, so buckets mix in proportion to their batches, and no counter is carried
        # along.
        turn, place = divmod(int(step), self.batches_per_pass)
        nth = _permuted(place, self.batches_per_pass, self.seed, turn)
        at = int(np.searchsorted(self._ends, nth, side="right"))
        return turn, self.buckets[at], nth - int(self._ends[at - 1] if at else 0)

    def bucket(self, step: int) -> Bucket:
        """The bucket of a step. Each pass visits every bucket as often as it fills batches, in an order of its own."""
        return self._place(step)[1]

    def indices(self, step: int) -> list[int]:
        """The samples of a step's batch, of all processes together. None comes twice within a pass."""
        turn, bucket, nth = self._place(step)
        samples, size = self.members[bucket], self.batch_sizes[bucket]
        which = self.buckets.index(bucket) + 1  # from 1: numpy takes (seed, turn) and (seed, turn, 0) for one seed
        # The order is of all samples, those that fill no batch too, so that other ones are left out in every pass.
        places = range(nth * size, (nth + 1) * size)
        return [int(samples[_permuted(at, len(samples), self.seed, turn, which)]) for at in places]


def plan(members: Mapping[Bucket, Sequence[int]], batch_sizes: Mapping[Bucket, int], seed: int) -> Plan:
    """The plan of whole batches; what is left of a bucket waits for another pass's shuffle.

    members: indices of each bucket's samples. batch_sizes: of each bucket, all hosts together. seed: of the orders.
    UserError if no bucket fills a batch.
    """
    counts = {b: len(m) // batch_sizes[b] for b, m in members.items() if len(m) >= batch_sizes[b]}
    if not counts:
        filled = ", ".join(f"{b.resolution} x {b.num_frames}: {len(m)} of {batch_sizes[b]}" for b, m in members.items())
        raise UserError(f"no bucket fills a batch ({filled or 'no sample fits'}): add clips or lower the batch sizes")
    return Plan(members, batch_sizes, counts, seed)


def _permuted(place: int, length: int, *seeds: int) -> int:
    """Where a pseudo-random permutation of `length` numbers takes one of them, in constant time and memory."""
    if length <= SMALL:
        return int(np.random.default_rng(seeds).permutation(length)[place])
    seed = int(np.random.SeedSequence(seeds).generate_state(1)[0])
    return index_shuffle(place, max_index=length - 1, seed=seed, rounds=ROUNDS)
