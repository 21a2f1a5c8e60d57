"""What processes of a run tell each other beside their steps: JSON values, and bytes from one to another.

Everything goes the way that gradients go, so no port is opened and nobody else is listened to.
"""

import json
import socket
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from osjax.errors import UserError

T = TypeVar("T")
CHUNK = 2**26  # bytes that are on their way at once


def of_all(value: Any) -> list[Any]:
    """What each process tells, in their order. All processes call it together. value: this one's, of JSON."""
    if jax.process_count() == 1:
        return [value]
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    lengths = np.asarray(multihost_utils.process_allgather(np.array(len(data)))).ravel()
    padded = np.zeros(lengths.max(), np.uint8)
    padded[: len(data)] = data
    rows = np.asarray(multihost_utils.process_allgather(padded))
    return [json.loads(row[:length].tobytes()) for row, length in zip(rows, lengths, strict=True)]


def of_process_0(value: Any = None) -> Any:
    """What process 0 tells. All processes call it together. value: of JSON, and only that of process 0 counts."""
    return of_all(value if jax.process_index() == 0 else None)[0]


def send(pieces: Sequence[np.ndarray], source: int, target: int) -> None:
    """Copy arrays from one process to another; both call it, and no other has to.

    pieces: arrays in C order, of the same sizes on both sides; those of process `target` are overwritten with those of
    process `source`.
    """
    total = sum(piece.nbytes for piece in pieces)
    size = min(CHUNK, 1 << max(0, total - 1).bit_length())
    devices = [next(d for d in jax.devices() if d.process_index == index) for index in (source, target)]
    mesh = Mesh(np.array(devices), ("process",))
    split, mine = NamedSharding(mesh, PartitionSpec("process")), devices[jax.process_index() == target]
    for views in _chunks(pieces, size):
        row = np.zeros((1, size), np.uint8)
        places = np.cumsum([0, *(len(view) for view in views)])
        if jax.process_index() == source:
            for view, place in zip(views, places, strict=False):
                row[0, place : place + len(view)] = view
        both = jax.make_array_from_single_device_arrays((2, size), split, [jax.device_put(row, mine)])
        told = np.asarray(_first(mesh)(both).addressable_data(0))
        if jax.process_index() == target:
            for view, place in zip(views, places, strict=False):
                view[:] = told[place : place + len(view)]


@cache
def _first(mesh: Mesh) -> Any:
    return jax.jit(lambda rows: rows[0], out_shardings=NamedSharding(mesh, PartitionSpec()))


def _chunks(pieces: Iterable[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    """The bytes of arrays, in order, as lists of views which together have `size` of them, but for the last."""
    views, left = [], size
    for piece in pieces:
        flat = piece.reshape(-1).view(np.uint8)
        while len(flat):
            views.append(flat[:left])
            left, flat = left - len(views[-1]), flat[len(views[-1]) :]
            if not left:
                yield views
                views, left = [], size
    if views:
        yield views


def process_0_first(make: Callable[[], T]) -> T:
    """What `make` gives here, called by process 0 and only then by the others, who may see what it left on disk.

    All processes call this together. What it raises in process 0 is raised in all.
    """
    if jax.process_count() == 1:
        return make()
    made, error = None, None
    if jax.process_index() == 0:
        try:
            made = make()
        except Exception as raised:
            error = raised
    told = of_process_0(str(error) or type(error).__name__ if error else "")
    if error:
        raise error
    if told:
        raise UserError(told)
    return make() if made is None else made


def same(value: Any, what: str, mend: str) -> None:
    """UserError in all processes where one has another value than process 0; it is named. They call this together.

    value: of JSON. what: it is, and mend: what to do, for the message.
    """
    told = of_all([value, socket.gethostname()])
    others = [f"process {i} on {host}" for i, (one, host) in enumerate(told) if one != told[0][0]]
    if others:
        raise UserError(f"{what} of {', '.join(others[:4])} is another than that of process 0 on {told[0][1]}: {mend}")


def problems_of_all(lines: Sequence[str]) -> list[str]:
    """What is wrong in some process, told in all; each calls this, with what is wrong in its own eyes.

    lines: a mistake each. One that not all make begins with who does.
    """
    told = of_all([list(lines), socket.gethostname()])
    everybodys = [line for line in lines if all(line in one for one, _ in told)]
    for index, (one, host) in enumerate(told):
        everybodys += [f"process {index} on {host}: {line}" for line in one if line not in everybodys]
    return everybodys


def check_shared(folder: Path, mend: str) -> None:
    """UserError, status 2, where not all processes see a folder as one and the same. They call this together.

    folder: local; process 0 writes a file to it that it takes away again. mend: what to do, for the message.
    """
    if jax.process_count() == 1:
        return
    name = of_process_0(f".osjax.seen-{uuid.uuid4().hex}.part")
    probe, problem = folder / name, ""
    if jax.process_index() == 0:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe.touch()
        except OSError as error:
            problem = f"{folder} cannot be written ({error.strerror})"
    problem = of_process_0(problem)
    told = of_all([probe.exists(), socket.gethostname()])
    if jax.process_index() == 0:
        probe.unlink(missing_ok=True)
    blind = [f"process {i} on {host}" for i, (seen, host) in enumerate(told) if not seen]
    if problem or blind:
        raise UserError(problem or f"{folder} is another folder for {', '.join(blind[:4])}: {mend}", status=2)
