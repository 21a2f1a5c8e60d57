"""The safetensors format: a header that is checked before it is believed, and a writer that streams.

The safetensors library reads whole tensors of its own dtypes and writes what is in memory; its byte layout is kept.
"""

import json
import struct
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path

import ml_dtypes
import numpy as np

from osjax import atomic
from osjax.errors import UserError
from osjax.weights.tensor_file import FileTensor, in_file

MAX_HEADER = 2**24  # bytes; the header of an 11B model has a hundred thousand
MAX_DIMENSIONS = 32

# In the library's order: wider dtypes come first in a file, so that tensors are aligned.
DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
    "I16": np.dtype(np.int16),
    "U16": np.dtype(np.uint16),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I32": np.dtype(np.int32),
    "U32": np.dtype(np.uint32),
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
    "I64": np.dtype(np.int64),
    "U64": np.dtype(np.uint64),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def read(path: Path) -> dict[str, FileTensor]:
    """The tensors of the file at `path` by name, not read yet.

    UserError for a file that is truncated, corrupt or no safetensors file at all.
    """
    header, start = _header(path)
    size = path.stat().st_size - start
    tensors, places, end = {}, [], 0
    for name, entry in header.items():
        if name != "__metadata__":
            tensors[name], (begin, stop) = _tensor(path, name, entry, start)
            places.append((begin, stop, name))
    for begin, stop, name in sorted(places):
        if begin != end:
            what = (
                "shares bytes with another tensor" if begin < end else f"has {begin - end} bytes of no tensor before it"
            )
            raise UserError(f"{path}: {name!r} {what}; fetch the file again")
        end = stop
    if end > size:
        raise UserError(f"{path} is cut off: {size} of {end} bytes of tensors are there; fetch it again")
    if end < size:
        raise UserError(f"{path} holds {size - end} bytes that belong to no tensor: fetch it again")
    return tensors


def _header(path: Path) -> tuple[dict, int]:
    """The JSON header and the byte after it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
        if MAX_HEADER < length <= size - 8:
            raise UserError(f"{path} has a header of {length} bytes, more than any weights need: fetch it again")
        if not 2 <= length <= size - 8:
            raise UserError(f"{path} is no safetensors file, or is cut off: fetch it again")
        text = file.read(length)
    try:
        header = json.loads(text, object_pairs_hook=_unique)
        if not isinstance(header, dict):
            raise ValueError("no object")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} has a header that is no table of tensors ({error}): fetch it again") from error
    return header, 8 + length


def _unique(pairs: list) -> dict:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a name is there twice")
    return out


def _tensor(path: Path, name: str, entry: object, start: int) -> tuple[FileTensor, tuple[int, int]]:
    """A tensor from its header entry, its first byte and the one after it, counted from the end of the header."""
    keys = ("dtype", "shape", "data_offsets")
    dtype, shape, offsets = (entry.get(key) if isinstance(entry, dict) else None for key in keys)
    if not (_sizes(shape) and len(shape) <= MAX_DIMENSIONS and _sizes(offsets) and len(offsets) == 2):
        raise UserError(f"{path}: the header's entry of {name!r} is damaged; fetch it again")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise UserError(f"{path}: {name!r} is of type {dtype!r}; osjax reads {', '.join(DTYPES)}")
    begin, end = offsets
    if end - begin != prod(shape) * DTYPES[dtype].itemsize:
        raise UserError(f"{path}: {name!r} of {shape} {dtype} has {end - begin} bytes; fetch the file again")
    return FileTensor(tuple(shape), DTYPES[dtype], in_file(path, start + begin)), (begin, end)


def _sizes(values: object) -> bool:
    return isinstance(values, list) and all(type(n) is int and 0 <= n < 2**62 for n in values)


def metadata(path: Path) -> dict[str, str]:
    """The texts that the header of the file at `path` holds beside its tensors. UserError as for `read`."""
    texts = _header(path)[0].get("__metadata__", {})
    return {k: v for k, v in texts.items() if isinstance(v, str)} if isinstance(texts, dict) else {}


def write(
    path: Path,
    tensors: Mapping[str, tuple[tuple[int, ...], np.dtype]],
    fetch: Callable[[str], np.ndarray],
    texts: Mapping[str, str] | None = None,
) -> None:
    """Write tensors, {name: (shape, dtype)}, with values from `fetch(name)`, one after the other, to the file `path`.

    Byte for byte what the library writes for the same tensors, with {"format": "pt"} as other readers expect it.
    texts: for the header. The file appears whole or not at all.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt", **(texts or {})}}
    place = 0
    for name in order(tensors):
        shape, dtype = tensors[name]
        size = prod(shape) * dtype.itemsize
        header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with atomic.complete(path) as partial, partial.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order(tensors):
            value = np.ascontiguousarray(fetch(name))
            file.write(memoryview(value.reshape(-1).view(np.uint8)))


def order(tensors: Mapping[str, tuple[tuple[int, ...], np.dtype]]) -> list[str]:
    """The names of tensors, {name: (shape, dtype)}, in the library's order: wide dtypes first, then by name."""
    rank = {dtype: i for i, dtype in enumerate(DTYPES.values())}
    return sorted(tensors, key=lambda name: (-rank[tensors[name][1]], name))
