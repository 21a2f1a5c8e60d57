"""How many blocks of a model fit into a device's memory, from compiled programs of few blocks."""

import math
from collections.abc import Callable

import jax

from osjax.errors import UserError
from osjax.parallel import device_memory

USABLE = 0.92  # of the memory; the rest is the allocator's and the collectives'
Blocks = tuple[int, int]


def blocks(bytes_of: Callable[[Blocks], int], whole: Blocks, limit: float) -> Blocks:
    """The most (double, single) blocks, in the proportion of `whole`, of which no program needs more than `limit`.

    bytes_of: what the program of so many blocks needs. It grows by the same amount with each block of a scan, so two
    small programs tell the rest. UserError when not even the smallest fits.
    """
    parts = math.gcd(*whole)

    def of(count: int) -> Blocks:
        return whole[0] // parts * count, whole[1] // parts * count

    few = min(2, parts)  # a scan of one block is compiled as none
    if parts <= 3:
        fitting = [n for n in range(parts, 0, -1) if bytes_of(of(n)) <= limit]
        count = fitting[0] if fitting else 0
    else:
        smaller, larger = bytes_of(of(few)), bytes_of(of(few + 1))
        count = few + int((limit - smaller) // max(larger - smaller, 1))
    if count < 1:
        raise UserError(f"not even {of(1)} blocks fit in {limit / 2**30:.1f} GiB: take more devices or smaller videos")
    return of(min(count, parts))


def limit() -> float:
    """Bytes of one device that a program may use; of a CPU, its share of the machine's memory."""
    return USABLE * device_memory.bytes_of(jax.local_devices()[0])
