"""Which bucket a step trains on: a pure function of (seed, step), so every host agrees without a message."""

import threading
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from grain.experimental import index_shuffle

from osjax.data.buckets import Bucket
from osjax.errors import UserError

ROUNDS = 4  # of the block cipher behind a permutation
SMALL = 4096  # lengths whose permutation is written out: the cipher is slow for short ones
EMPTY = 100  # passes in a row that draw no batch before the data count as too few

Members = Mapping[Bucket, Sequence[int]]


class Batch(NamedTuple):
    """What a step trains on. indices: its samples. members: all samples of its bucket in that pass."""

    bucket: Bucket
    indices: list[int]
    members: Sequence[int]


@dataclass(frozen=True)
class Pass:
    """One pass over the data. members: indices of each bucket's samples, such as memory-mapped arrays.

    counts: whole batches that each bucket fills, of the buckets that fill one.
    """

    members: Members
    counts: Mapping[Bucket, int]

    @cached_property
    def buckets(self) -> tuple[Bucket, ...]:
        """The buckets that fill a batch, in an order that every host finds."""
        return tuple(sorted(self.counts))

    @cached_property
    def ends(self) -> np.ndarray:
        """Where each bucket's batches end, when the batches of the pass stand in a row, bucket after bucket."""
        return np.cumsum([self.counts[bucket] for bucket in self.buckets], dtype=np.int64)

    @property
    def batches(self) -> int:
        """Steps of the pass."""
        return int(self.ends[-1]) if len(self.ends) else 0


class Plan:
    """Which samples every step trains on.

    members: gives those of the pass of a number, counted from 0. Samples that draw their bucket do so in each pass, so
        passes differ in length.
    batch_sizes: of every bucket that any pass may have, all hosts together. seed: of the orders.
    settled: all passes have the same members. fill: the last batch of a bucket, which its samples do not fill, takes
        some of them again; else they wait for another pass.
    UserError where no bucket fills a batch.

    Nothing is stored per batch or per sample: orders are permutations that are computed at one place at a time. Of
    passes it keeps where they begin, and the members of the last two, as several threads ask.
    """

    def __init__(
        self,
        members: Callable[[int], Members],
        batch_sizes: Mapping[Bucket, int],
        seed: int,
        settled: bool = False,
        fill: bool = False,
    ):
        self.batch_sizes, self.seed, self.settled, self.fill = batch_sizes, seed, settled, fill
        self._members, self._lock = members, threading.Lock()
        self._passes: dict[int, Pass] = {}
        self._starts = [0]  # first step of each pass that was asked for so far, and of the next
        self._locate(0)

    @cached_property
    def buckets(self) -> tuple[Bucket, ...]:
        """The buckets that a step may have, in an order that every host finds."""
        return self.pass_of(0).buckets if self.settled else tuple(sorted(self.batch_sizes))

    def pass_of(self, turn: int) -> Pass:
        """The pass number `turn`, counted from 0."""
        with self._lock:
            return self._pass(turn)

    def bucket(self, step: int) -> Bucket:
        """The bucket of a step. Each pass visits every bucket as often as it fills batches, in an order of its own."""
        return self._place(step)[2]

    def indices(self, step: int) -> list[int]:
        """The samples of a step's batch, of all processes together. None comes twice in a pass without `fill`."""
        return self.batch(step).indices

    def batch(self, step: int) -> Batch:
        """What a step trains on, all processes together."""
        turn, now, bucket, nth = self._place(step)
        samples, size = now.members[bucket], self.batch_sizes[bucket]
        which = now.buckets.index(bucket) + 1  # from 1: numpy takes (seed, turn) and (seed, turn, 0) for one seed
        # The order is of all samples, those that fill no batch too, so that other ones are left out in every pass.
        places = range(nth * size, (nth + 1) * size)
        order = (_permuted(at % len(samples), len(samples), self.seed, turn, which) for at in places)
        indices = [int(samples[at]) for at in order]
        return Batch(bucket, indices, samples)

    def _place(self, step: int) -> tuple[int, Pass, Bucket, int]:
        """(number of the pass, the pass, bucket, which of the bucket's batches in that pass)."""
        # Steps visit the row of a pass's batches in a permuted order, so buckets mix in proportion to their batches,
        # and no counter is carried along.
        turn, now, place = self._locate(int(step))
        nth = _permuted(place, now.batches, self.seed, turn)
        at = int(np.searchsorted(now.ends, nth, side="right"))
        return turn, now, now.buckets[at], nth - int(now.ends[at - 1] if at else 0)

    def _locate(self, step: int) -> tuple[int, Pass, int]:
        """(number of the pass of a step, the pass, which of its steps)."""
        with self._lock:
            if self.settled:
                now = self._pass(0)
                if not now.batches:
                    raise self._too_few(now)
                turn, place = divmod(step, now.batches)
                return turn, now, place
            while step >= self._starts[-1]:
                now = self._pass(len(self._starts) - 1)
                self._starts.append(self._starts[-1] + now.batches)
                if len(self._starts) > EMPTY and self._starts[-1] == self._starts[-1 - EMPTY]:
                    raise self._too_few(now)
            turn = bisect_right(self._starts, step) - 1
            return turn, self._pass(turn), step - self._starts[turn]

    def _pass(self, turn: int) -> Pass:
        turn = 0 if self.settled else turn
        if turn not in self._passes:
            members, sizes = self._members(turn), self.batch_sizes
            spare = {bucket: sizes[bucket] - 1 if self.fill else 0 for bucket in members}
            counts = {bucket: (len(m) + spare[bucket]) // sizes[bucket] for bucket, m in members.items()}
            counts = {bucket: count for bucket, count in counts.items() if count}
            # Threads read a little ahead, so at the end of a pass two are in use.
            self._passes = {turn: Pass(members, counts), **dict(list(self._passes.items())[:1])}
        return self._passes[turn]

    def _too_few(self, now: Pass) -> UserError:
        filled = ", ".join(
            f"{bucket.resolution} x {bucket.num_frames}: {len(m)} of {self.batch_sizes[bucket]}"
            for bucket, m in now.members.items()
        )
        return UserError(f"no bucket fills a batch ({filled or 'no sample fits'}): add clips or lower the batch sizes")


def plan(members: Members, batch_sizes: Mapping[Bucket, int], seed: int) -> Plan:
    """The plan whose passes all have the same members; what is left of a bucket waits for another pass's shuffle.

    members: indices of each bucket's samples. batch_sizes: of each bucket, all hosts together. seed: of the orders.
    UserError if no bucket fills a batch.
    """
    return Plan(lambda turn: members, batch_sizes, seed, settled=True)


def _permuted(place: int, length: int, *seeds: int) -> int:
    """Where a pseudo-random permutation of `length` numbers takes one of them, in constant time and memory."""
    if length <= SMALL:
        return int(np.random.default_rng(seeds).permutation(length)[place])
    seed = int(np.random.SeedSequence(seeds).generate_state(1)[0])
    return index_shuffle(place, max_index=length - 1, seed=seed, rounds=ROUNDS)
