"""Tensors that lie in a file and are read by slices; nothing of them is in memory before.

Plain reads, no memory map: pages of a map count as memory of the process for as long as the kernel keeps them.
"""

import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from osjax.errors import UserError


@dataclass(frozen=True)
class FileTensor:
    """A tensor in a file: `tensor[slices]` reads that part, `np.asarray(tensor)` all of it.

    fetch:   (first byte, number of bytes) of the tensor's storage -> uint8 array.
    offset:  of the first element, in elements of the storage.
    strides: in elements; None is C order.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    fetch: Callable[[int, int], np.ndarray]
    offset: int = 0
    strides: tuple[int, ...] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the whole tensor in memory."""
        return prod(self.shape) * self.dtype.itemsize

    def __getitem__(self, index: Any) -> np.ndarray:
        index = (*(index if isinstance(index, tuple) else (index,)), ...)  # arrays, also of no dimension
        if prod(self.shape) == 0:
            return np.empty(self.shape, self.dtype)[index]
        if self.strides is not None:
            return self._strided()[index]
        if not isinstance(index[0], slice) or index[0].step not in (None, 1):
            return self._rows(0, self.shape[0] if self.shape else 1)[index]
        start, stop, _ = index[0].indices(self.shape[0])
        return self._rows(start, max(start, stop))[(slice(None), *index[1:])]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        whole = self[()]
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def _rows(self, start: int, stop: int) -> np.ndarray:
        row, item = prod(self.shape[1:]), self.dtype.itemsize
        read = self.fetch((self.offset + start * row) * item, (stop - start) * row * item)
        return read.view(self.dtype).reshape((stop - start, *self.shape[1:]) if self.shape else ())

    def _strided(self) -> np.ndarray:
        item, span = self.dtype.itemsize, extent(self.shape, self.strides)
        read = self.fetch(self.offset * item, span * item).view(self.dtype)
        return np.lib.stride_tricks.as_strided(read, self.shape, [s * item for s in self.strides], writeable=False)


def extent(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Elements of the storage from the first to the last of a tensor; 0 for an empty one. strides: in elements."""
    return 0 if 0 in shape else 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))


def in_file(path: Path, start: int) -> Callable[[int, int], np.ndarray]:
    """The `fetch` of a storage that begins at byte `start` of the file at `path`.

    It raises UserError where the file cannot be read or ends too early.
    """

    def fetch(first: int, count: int) -> np.ndarray:
        out = np.empty(count, np.uint8)
        try:
            with path.open("rb", buffering=0) as file:
                file.seek(start + first)
                view, done = memoryview(out), 0
                while done < count and (got := file.readinto(view[done : done + 2**30])):
                    done += got
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror or error})") from error
        if done != count:
            raise UserError(f"{path} ends too early: fetch it again")
        return out

    return fetch


def in_zip(path: Path, entry: zipfile.ZipInfo) -> Callable[[int, int], np.ndarray]:
    """The `fetch` of a storage that is an entry, compressed, of the zip file at `path`.

    It is unpacked anew each time, up to what is wanted. It raises UserError where the file is damaged.
    """

    def fetch(first: int, count: int) -> np.ndarray:
        try:
            with zipfile.ZipFile(path) as archive, archive.open(entry) as file:
                file.seek(first)
                read = file.read(count)
        except ZIP_ERRORS as error:
            raise UserError(f"{path} is damaged at {entry.filename} ({error}): fetch it again") from error
        if len(read) != count:
            raise UserError(f"{path} ends too early at {entry.filename}: fetch it again")
        return np.frombuffer(read, np.uint8)

    return fetch


# What zipfile raises on files that are not quite zip files.
ZIP_ERRORS = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    OSError,
    EOFError,
    ValueError,
    IndexError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    zlib.error,
    struct.error,
)
