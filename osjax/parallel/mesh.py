"""The device mesh: axes data, fsdp, sequence and tensor, any of size 1."""

import math
from collections.abc import Sequence

import jax
from jax.sharding import AxisType, Mesh

from osjax.errors import UserError

AXES = ("data", "fsdp", "sequence", "tensor")


def make(
    data: int = -1, fsdp: int = 1, sequence: int = 1, tensor: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """Mesh over all devices (or those given). At most one axis may be -1: it takes the devices that are left.

    Axes are Auto: shardings are asked for at jit boundaries and by constraints, and the compiler places the rest.
    UserError for sizes that do not multiply to the number of devices, with the nearest that do.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = [data, fsdp, sequence, tensor]
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise UserError(f"mesh {_show(sizes)} is not valid: sizes are positive, and at most one is -1 (the rest)")
    fixed = math.prod(size for size in sizes if size != -1)
    count = len(devices)
    filled = [count // fixed if size == -1 else size for size in sizes]
    if math.prod(filled) != count:
        raise UserError(f"mesh {_show(sizes)} does not fit {count} devices: the nearest is {_nearest(sizes, count)}")
    return jax.make_mesh(filled, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def _show(sizes: Sequence[int]) -> str:
    return ", ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))


def _nearest(sizes: Sequence[int], count: int) -> str:
    """Keep tensor, sequence and fsdp as near to what was asked as the devices divide; data takes the rest."""
    left, kept = count, []
    for size in reversed(sizes[1:]):
        size = max(d for d in range(1, left + 1) if left % d == 0 and d <= max(size, 1))
        kept.insert(0, size)
        left //= size
    return _show([left, *kept])


def initialize(coordinator: str | None = None, processes: int | None = None, index: int | None = None) -> None:
    """Join the processes of a multi-host run; call it before any other jax call.

    Without arguments jax detects TPU pods, SLURM, Open MPI and Kubernetes. coordinator: `host:port` of process 0.
    """
    jax.distributed.initialize(coordinator, processes, index)
