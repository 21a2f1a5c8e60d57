"""The device mesh: axes data, fsdp, sequence and tensor, any of size 1."""

import math
import os
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh

from osjax.errors import UserError

HEARTBEAT_S = 30  # without a sign of life from one process, jax ends all of them
AXES = ("data", "fsdp", "sequence", "tensor")


def make(
    data: int = -1,
    fsdp: int = 1,
    sequence: int = 1,
    tensor: int = 1,
    devices: Sequence[jax.Device] | None = None,
    fit: bool = False,
) -> Mesh:
    """Mesh over all devices (or those given). At most one axis may be -1: it takes the devices that are left.

    data: copies of the model, which split the batch. fsdp: devices that split the batch and the weights. sequence: that
    split tokens, and the weights as well. tensor: that split heads and hidden units.
    fit: sizes that do not multiply to the number of devices give way to the nearest that do.
    Axes are Auto: shardings are asked for at jit boundaries and by constraints, and the compiler places the rest.
    UserError for sizes that do not multiply to the number of devices, with the nearest that do, unless they may `fit`.
    """
    devices = list(jax.devices() if devices is None else devices)
    filled = _filled([data, fsdp, sequence, tensor], len(devices), fit)
    return Mesh(arrange(filled, devices), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def absent(
    data: int = -1, fsdp: int = 1, sequence: int = 1, tensor: int = 1, *, count: int, fit: bool = False
) -> AbstractMesh:
    """The mesh that `make` would give of `count` devices, without any: enough for shapes and their shardings.

    data, fsdp, sequence, tensor, fit: as in `make`.
    """
    filled = _filled([data, fsdp, sequence, tensor], count, fit)
    return AbstractMesh(tuple(filled), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _filled(sizes: Sequence[int], count: int, fit: bool) -> list[int]:
    """Sizes without -1. UserError where they do not multiply to the number of devices and may not give way."""
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise UserError(
            f"mesh {_show(sizes)} is not valid: sizes are positive, and at most one is -1 (the rest)", status=2
        )
    fixed = math.prod(size for size in sizes if size != -1)
    filled = [count // fixed if size == -1 else size for size in sizes]
    if math.prod(filled) == count:
        return filled
    nearest = _nearest(sizes, count)
    if fit:
        return nearest
    raise UserError(
        f"mesh {_show(sizes)} does not fit {count} devices: the nearest is {_show(nearest)}; mesh.fit takes it",
        status=2,
    )


def arrange(sizes: Sequence[int], devices: Sequence[jax.Device]) -> np.ndarray:
    """Devices in the shape of `sizes`, so that the inner axes, which say the most, lie on the fastest links.

    Devices of several slices (TPU pods joined by a data centre's network, GPU hosts) split `data` first, then `fsdp`.
    UserError where sequence or tensor would be split between slices of TPUs.
    """
    slices = len({getattr(device, "slice_index", None) for device in devices})
    if slices == 1:
        try:
            return mesh_utils.create_device_mesh(sizes, devices)
        except NotImplementedError:  # an axis is no product of whole sides of the TPU slice, such as 8 of 4x4x4
            return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    count = len(devices) // slices
    if len(devices) % slices:
        raise UserError(f"{len(devices)} devices in {slices} slices of unequal size: use slices of one kind")
    between = []
    for size in sizes:
        between.append(math.gcd(size, slices // math.prod(between)))
    if between[2] * between[3] > 1 and devices[0].platform == "tpu":
        raise UserError(
            f"mesh {_show(sizes)} splits sequence or tensor between slices of {count} devices, whose network is too "
            f"slow for that: the nearest is {_show(_nearest(sizes, len(devices), count))}",
            status=2,
        )
    inside = [size // part for size, part in zip(sizes, between, strict=True)]
    return mesh_utils.create_hybrid_device_mesh(inside, between, devices)


def _show(sizes: Sequence[int]) -> str:
    return ", ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))


def _nearest(sizes: Sequence[int], count: int, in_slice: int | None = None) -> list[int]:
    """Keep tensor, sequence and fsdp as near to what was asked as the devices divide; data takes the rest.

    in_slice: what tensor and sequence together must divide, instead of all devices.
    """
    left, kept = in_slice or count, []
    for size in reversed(sizes[1:]):
        if len(kept) == 2:
            left = count // math.prod(kept)
        size = max(d for d in range(1, left + 1) if left % d == 0 and d <= max(size, 1))
        kept.insert(0, size)
        left //= size
    return [left, *kept]


def initialize(coordinator: str | None = None, processes: int | None = None, index: int | None = None) -> None:
    """Join the processes of a multi-host run; call it before any other jax call.

    Without arguments jax detects TPU pods, GKE, SLURM, Open MPI and Kubernetes. coordinator: `host:port` of process 0,
    processes: their number, index: which of them this is, from 0; JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
    JAX_PROCESS_ID stand in for what is not given. Given all three, nothing is asked of a cluster.
    UserError (status 2) where nothing is given and nothing found, or what is given does not fit together.
    """
    coordinator = coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS") or None
    processes = _number("JAX_NUM_PROCESSES") if processes is None else processes
    index = _number("JAX_PROCESS_ID") if index is None else index
    told = None not in (coordinator, processes, index)
    if coordinator and not coordinator.rpartition(":")[2].isdigit():
        raise UserError(f"coordinator {coordinator!r} lacks its port: give HOST:PORT, such as host0:8476", status=2)
    if told and not 0 <= index < processes:
        raise UserError(f"process {index} of {processes} does not exist: count them from 0", status=2)
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            index,
            cluster_detection_method="deactivate" if told else None,
            heartbeat_timeout_seconds=HEARTBEAT_S,
        )
    except ValueError as error:
        raise UserError(
            f"no cluster found ({error}): give the coordinator's HOST:PORT, the number of processes and which one this "
            "is, or start on a TPU pod or under SLURM, Open MPI or Kubernetes",
            status=2,
        ) from error


def _number(variable: str) -> int | None:
    text = os.environ.get(variable, "")
    if text and not text.isdigit():
        raise UserError(f"{variable} is {text!r}: set it to a number", status=2)
    return int(text) if text else None
