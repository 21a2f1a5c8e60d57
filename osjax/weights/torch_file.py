"""PyTorch checkpoints (.pt, .pth, .bin): the zip format, and the older one of pickles followed by bytes.

Read without PyTorch and without executing anything, see `torch_pickle`. Entries of a zip are looked up by name in the
archive alone; no name of a file ever becomes a path.
"""

import struct
import zipfile
from collections.abc import Callable
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from osjax.errors import UserError
from osjax.weights import torch_pickle
from osjax.weights.tensor_file import ZIP_ERRORS, FileTensor, in_file, in_zip
from osjax.weights.torch_pickle import Refused, StorageRef, TensorRef

MAX_PICKLE = 2**24  # bytes; the pickle of an 11B model has a quarter of a million
MAX_EXPANSION = 100  # times that a compressed storage may grow, if it is large
SMALL = 2**24
MAGIC = 0x1950A86A20F9469CFC6C  # opens the older format
PROTOCOL = 1001
WRAPPERS = ("state_dict", "model", "module", "model_state_dict")  # what trainers put state dicts under
LOCAL_HEADER = 30  # bytes before the name of a zip entry

Fetch = Callable[[int, int], np.ndarray]


def read(path: Path) -> dict[str, FileTensor]:
    """The tensors of the checkpoint at `path` by name, not read yet.

    UserError for one that is damaged or asks for anything but tensors.
    """
    try:
        zipped = zipfile.is_zipfile(path)
        root, fetch = _read_zip(path) if zipped else _read_old(path)
        return {
            name: FileTensor(t.shape, t.dtype, fetch(t.storage), t.offset, _strides(t))
            for name, t in _state_dict(root).items()
        }
    except Refused as error:
        raise UserError(f"{path} is not read: {error}") from error
    except ZIP_ERRORS as error:
        raise UserError(f"{path} is no sound PyTorch checkpoint ({str(error)[:100]}): fetch it again") from error


def _strides(tensor: TensorRef) -> tuple[int, ...] | None:
    """None for C order, however a checkpoint writes it down."""
    in_order = [prod(tensor.shape[i + 1 :]) for i in range(len(tensor.shape))]
    same = all(n == 1 or s == c for n, s, c in zip(tensor.shape, tensor.strides, in_order, strict=True))
    return None if same else tensor.strides


def _state_dict(root: Any, depth: int = 0) -> dict[str, TensorRef]:
    """The tensors by name: at the top, or under one of the names that trainers use."""
    if not isinstance(root, dict):
        raise Refused(f"it holds a {type(root).__name__}, not a state dict; save only the state dict")
    tensors = {str(name): value for name, value in root.items() if isinstance(value, TensorRef)}
    if tensors:
        return tensors
    inner = next((root[name] for name in WRAPPERS if isinstance(root.get(name), dict)), None)
    if inner is None or depth > 2:
        keys = ", ".join(map(str, list(root)[:5]))[:100]
        raise Refused(f"it holds no tensors by name (only {keys or 'nothing'}); save only the state dict")
    return _state_dict(inner, depth + 1)


def _read_zip(path: Path) -> tuple[Any, Callable[[StorageRef], Fetch]]:
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if len(entries) != len(archive.infolist()):
            raise Refused("its zip file has two entries of one name")
        packed = [
            e.filename for e in entries.values() if e.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        ]
        if packed:
            raise Refused(f"{packed[0][:100]!r} in it is packed as PyTorch does not; save it anew")
        pickles = [name for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise Refused(f"its zip file has {len(pickles)} data.pkl in place of one")
        folder = pickles[0].removesuffix("data.pkl")
        order = entries.get(f"{folder}byteorder")
        if order is not None and _content(archive, order) != b"little":
            raise Refused("it was saved on a big-endian machine; save it anew on another")
        root = torch_pickle.interpret(BytesIO(_content(archive, entries[pickles[0]])))

    def fetch(storage: StorageRef) -> Fetch:
        entry = entries.get(f"{folder}data/{storage.key}")
        if entry is None:
            raise Refused(f"storage {storage.key[:100]!r} is missing in it; fetch it again")
        if entry.file_size < storage.length * storage.dtype.itemsize:
            raise Refused(f"storage {storage.key[:100]!r} in it is cut off; fetch it again")
        if entry.compress_type != zipfile.ZIP_STORED:
            if entry.file_size > max(SMALL, MAX_EXPANSION * entry.compress_size):
                raise Refused(f"storage {storage.key[:100]!r} would grow to {entry.file_size} bytes, as in a zip bomb")
            return in_zip(path, entry)
        return in_file(path, _start(path, entry))

    return root, fetch


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    if entry.file_size > MAX_PICKLE:
        raise Refused(f"{entry.filename[:100]!r} in it has {entry.file_size} bytes, more than any weights need")
    with archive.open(entry) as file:
        return file.read(MAX_PICKLE)


def _start(path: Path, entry: zipfile.ZipInfo) -> int:
    """Where the bytes of an uncompressed entry begin; they must end inside the file."""
    with path.open("rb") as file:
        file.seek(entry.header_offset)
        header = file.read(LOCAL_HEADER)
        size = file.seek(0, 2)
    if len(header) != LOCAL_HEADER or header[:4] != b"PK\3\4" or entry.flag_bits & 1:
        raise Refused(f"{entry.filename[:100]!r} in it is damaged or encrypted; fetch it again")
    name, extra = struct.unpack("<HH", header[26:])
    start = entry.header_offset + LOCAL_HEADER + name + extra
    if start + entry.file_size > size:
        raise Refused(f"{entry.filename[:100]!r} in it is cut off; fetch it again")
    return start


def _read_old(path: Path) -> tuple[Any, Callable[[StorageRef], Fetch]]:
    """Pickles of a magic number, a version, facts about the machine, the object and the storages' keys; then bytes."""
    with path.open("rb") as file:
        stream = BytesIO(file.read(MAX_PICKLE))
        size = file.seek(0, 2)
    if torch_pickle.interpret(stream, wide=True) != MAGIC or torch_pickle.interpret(stream) != PROTOCOL:
        raise Refused("it is a bare pickle, no PyTorch checkpoint; get the weights as .safetensors")
    machine = torch_pickle.interpret(stream)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise Refused("it was saved on a big-endian machine; save it anew on another")
    root, keys = torch_pickle.interpret(stream), torch_pickle.interpret(stream)
    used = {tensor.storage.key: tensor.storage for tensor in _state_dict(root).values()}
    if not isinstance(keys, list) or any(type(key) is not str for key in keys):
        raise Refused("its list of storages is damaged; fetch it again")
    starts, place = {}, stream.tell()
    for key in keys:
        if key not in used:
            raise Refused(f"storage {key[:100]!r} in it belongs to no tensor of the state dict; save only that")
        head = in_file(path, place)(0, 8)
        (length,) = struct.unpack("<q", head.tobytes())
        if length != used[key].length:
            raise Refused(f"storage {key[:100]!r} in it is damaged; fetch it again")
        starts[key] = place + 8
        place = starts[key] + length * used[key].dtype.itemsize
    if place > size:
        raise Refused("it is cut off; fetch it again")

    def fetch(storage: StorageRef) -> Fetch:
        if storage.key not in starts:
            raise Refused(f"storage {storage.key[:100]!r} is missing in it; fetch it again")
        return in_file(path, starts[storage.key])

    return root, fetch
