"""Checkpoints on one host's own disk: the parts of arrays that lie on its devices, with a sum for each of them.

A checkpoint is a folder N with two files: `arrays`, the bytes of all parts one after the other, and `about.json`, what
they are. It is written as N.part and renamed, so it is whole or not there. Sums are taken as bytes pass by: nothing is
read back.
"""

import json
import logging
import os
import shutil
import threading
import zlib
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from osjax import json_file
from osjax.errors import UserError
from osjax.types import Json, Tree

log = logging.getLogger(__name__)
ABOUT, ARRAYS, PART = "about.json", "arrays", ".part"
OWNER = "process-"


class Damaged(Exception):
    """A checkpoint on a host's disk that is not what was written."""


class HostDisk:
    """The checkpoints of one stage on this host's disk.

    folder: of the stage; each process of a host writes to a folder in it, and reads from those of all. owner: the
    number of this process. keep: how many of the newest stay.
    """

    def __init__(self, folder: Path, owner: int, keep: int = 2):
        self.folder, self.keep = folder, keep
        self._own = folder / f"{OWNER}{owner}"
        self._writing: threading.Thread | None = None
        self._told: str | None = None
        self._damaged: set[Path] = set()
        for left in self._own.glob(f"*{PART}"):
            shutil.rmtree(left, ignore_errors=True)

    def steps(self) -> dict[int, list[Path]]:
        """The folders of each step that is there, newest first. What is in them was not looked at."""
        there: dict[int, list[Path]] = {}
        for path in sorted(self.folder.glob(f"{OWNER}*/*")):
            if path.name.isdigit() and path not in self._damaged:
                there.setdefault(int(path.name), []).append(path)
        return dict(sorted(there.items(), reverse=True))

    def save(self, step: int, pieces: Mapping[str, jax.Array], about: Json) -> None:
        """Start writing a step; returns once the arrays are copied off the devices.

        pieces: parts of arrays by name, each on one device. about: JSON values that go with them. A step that cannot be
        written is told of, and nothing else: what is older is still there, and on the store.
        """
        self.wait()
        for piece in pieces.values():
            piece.copy_to_host_async()
        copies = {name: _own_copy(piece) for name, piece in pieces.items()}
        self._writing = threading.Thread(target=self._write, args=(step, copies, about), name="host disk", daemon=True)
        self._writing.start()

    def _write(self, step: int, copies: dict[str, np.ndarray], about: Json) -> None:
        partial, whole = self._own / f"{step}{PART}", self._own / str(step)
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            listed = {}
            with (partial / ARRAYS).open("wb") as file:
                for name in list(copies):
                    data = copies.pop(name)  # memory is given back as it is written
                    flat = data.reshape(-1).view(np.uint8).data
                    listed[name] = [str(data.dtype), data.shape, file.tell(), zlib.crc32(flat)]
                    file.write(flat)
                file.flush()
                os.fsync(file.fileno())
            _write_about(partial / ABOUT, {**about, "step": step, "arrays": listed})
            shutil.rmtree(whole, ignore_errors=True)
            partial.rename(whole)
            self._told = None
            steps = sorted(int(path.name) for path in self._own.iterdir() if path.name.isdigit())
            for old in steps[: -self.keep]:
                shutil.rmtree(self._own / str(old), ignore_errors=True)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            reason = error.strerror or str(error)
            if reason != self._told:  # once, and again when it was mended in between
                log.warning("step %d is not kept on %s (%s): training goes on", step, self.folder, reason)
            self._told = reason

    def wait(self) -> None:
        """Return once the last save is written, or given up."""
        if self._writing is not None:
            self._writing.join()
            self._writing = None

    def forget_after(self, step: int) -> None:
        """Remove what is newer than a step: the run goes on from there."""
        self.wait()
        for there, folders in self.steps().items():
            if there > step:
                for folder in folders:
                    shutil.rmtree(folder, ignore_errors=True)

    def drop(self, folder: Path, error: Damaged) -> None:
        """Remove a checkpoint that is damaged, loudly. folder: of it. error: what is wrong with it."""
        log.warning("%s is damaged and removed: %s", folder, error)
        self._damaged.add(folder)  # on a disk that cannot be written, it stays
        shutil.rmtree(folder, ignore_errors=True)

    def clear(self) -> None:
        """Remove all of the stage."""
        self.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def pieces_of(state: Tree) -> dict[str, jax.Array]:
    """The parts of a state's arrays that lie on this process's devices, each once, by the names of `piece_name`."""
    pieces: dict[str, jax.Array] = {}
    for path, array in jax.tree_util.tree_leaves_with_path(state):
        for shard in array.addressable_shards:
            pieces.setdefault(piece_name(path, shard.index, array.shape, array.dtype), shard.data)
    return pieces


def piece_name(path: tuple, index: tuple[slice, ...], shape: tuple[int, ...], dtype: np.dtype) -> str:
    """A name for part of an array: its path in the state, which rows, columns, ... of what shape, and its dtype.

    path: of `tree_leaves_with_path`. index: a slice for each axis. shape, dtype: of the whole array.
    """
    sides = [at.indices(size) for at, size in zip(index, shape, strict=True)]
    spans = ",".join(f"{start}:{stop}" for start, stop, _ in sides)
    return f"{jax.tree_util.keystr(path)}[{spans}] of {'x'.join(map(str, shape))} {dtype}"


def about(folder: Path) -> Json:
    """What a checkpoint in a folder says of itself. Damaged where it is not what was written."""
    try:
        told = json_file.read(folder / ABOUT, "", ("sum", "of"), largest=2**28)
        if told["sum"] != zlib.crc32(_canonical(told["of"])) or not isinstance(told["of"]["arrays"], dict):
            raise Damaged(f"{folder / ABOUT} has changed")
    except (UserError, TypeError, KeyError, RecursionError) as error:
        raise Damaged(str(error)) from error
    return told["of"]


def read(folder: Path, listed: Mapping[str, list]) -> dict[str, np.ndarray]:
    """Parts of arrays by name. folder: of the checkpoint. listed: the parts to read, with what it says of each.

    Damaged where one is not what was written.
    """
    arrays: dict[str, np.ndarray] = {}
    try:
        with (folder / ARRAYS).open("rb") as file:
            for name, (dtype, shape, at, expected) in listed.items():
                array = np.empty(shape, np.dtype(dtype))
                flat = array.reshape(-1).view(np.uint8)
                file.seek(at)
                if file.readinto(flat.data) != len(flat) or zlib.crc32(flat.data) != expected:
                    raise Damaged(f"{name} has changed")
                arrays[name] = array
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise Damaged(str(error)) from error
    return arrays


def _own_copy(piece: jax.Array) -> np.ndarray:
    """The values on the host, and not in the device's own buffer, which the next step overwrites."""
    values = np.asarray(piece)
    return np.array(values) if next(iter(piece.devices())).platform == "cpu" else np.ascontiguousarray(values)


def _canonical(value: Json) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _write_about(path: Path, value: Json) -> None:
    text = _canonical(value)
    with path.open("wb") as file:
        file.write(b'{"sum":%d,"of":%b}' % (zlib.crc32(text), text))
        file.flush()
        os.fsync(file.fileno())
