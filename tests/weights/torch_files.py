"""Writes PyTorch checkpoints opcode by opcode, as torch.save does, so that no test needs PyTorch."""

import pickle
import struct
import zipfile
from collections import OrderedDict

import ml_dtypes
import numpy as np

STORAGES = {
    np.dtype(np.float32): "FloatStorage",
    np.dtype(np.float16): "HalfStorage",
    np.dtype(np.float64): "DoubleStorage",
    np.dtype(ml_dtypes.bfloat16): "BFloat16Storage",
    np.dtype(np.int64): "LongStorage",
    np.dtype(np.bool_): "BoolStorage",
}


class Pickler:
    """Bytes of one pickle; the arrays in it become storages."""

    def __init__(self, old: bool = False):
        self.out, self.storages, self.old = b"\x80\x02", [], old

    def dump(self, value) -> bytes:
        self.add(value)
        return self.out + b"."

    def name(self, module, name):
        self.out += f"c{module}\n{name}\n".encode()

    def add(self, value):
        if isinstance(value, Strided):
            self.tensor(value.base, value.offset, value.shape, value.strides)
        elif isinstance(value, np.ndarray):
            value = np.asarray(value, order="C")
            self.tensor(value.reshape(-1), 0, value.shape, [s // value.itemsize for s in value.strides])
        elif isinstance(value, dict):
            if isinstance(value, OrderedDict):
                self.name("collections", "OrderedDict")
                self.out += b")R"
            else:
                self.out += b"}"
            self.out += b"("
            for key, item in value.items():
                self.add(key)
                self.add(item)
            self.out += b"u"
        elif isinstance(value, tuple):
            self.out += b"("
            for item in value:
                self.add(item)
            self.out += b"t"
        else:  # numbers and text as Python writes them, without its frame
            self.out += pickle.dumps(value, protocol=2)[2:-1]

    def tensor(self, base, offset, shape, strides):
        self.name("torch._utils", "_rebuild_tensor_v2")
        self.out += b"(("
        self.add("storage")
        self.name("torch", STORAGES[base.dtype])
        for part in (str(len(self.storages)), "cpu", base.size, *([None] if self.old else [])):
            self.add(part)
        self.out += b"tQ"
        for part in (offset, tuple(shape), tuple(strides), False):
            self.add(part)
        self.name("collections", "OrderedDict")
        self.out += b")RtR"
        self.storages.append(base)


class Strided:
    """A view of a flat array."""

    def __init__(self, base, offset, shape, strides):
        self.base, self.offset, self.shape, self.strides = base, offset, shape, strides


def write_zip(path, value, compression=zipfile.ZIP_STORED):
    pickler = Pickler()
    content = pickler.dump(value)
    return write_entries(path, content, pickler.storages, compression)


def write_entries(path, content: bytes, storages=(), compression=zipfile.ZIP_STORED, **more: bytes):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/byteorder", more.pop("byteorder", b"little"))
        for i, storage in enumerate(storages):
            archive.writestr(f"archive/data/{i}", storage.tobytes())
        archive.writestr("archive/version", b"3\n")
        for name, extra in more.items():
            archive.writestr(name, extra)
    return path


def write_old(path, value):
    """The format before PyTorch 1.6."""
    pickler = Pickler(old=True)
    content = pickler.dump(value)
    facts = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    parts = [0x1950A86A20F9469CFC6C, 1001, facts]
    out = b"".join(pickle.dumps(part, protocol=2) for part in parts) + content
    out += pickle.dumps([str(i) for i in range(len(pickler.storages))], protocol=2)
    for storage in pickler.storages:
        out += struct.pack("<q", storage.size) + storage.tobytes()
    path.write_bytes(out)
    return path
