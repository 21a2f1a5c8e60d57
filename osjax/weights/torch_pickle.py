"""What a PyTorch checkpoint's pickle says, without PyTorch and without executing anything.

`pickletools.genops` only cuts a pickle into opcodes. The stack machine below builds numbers, text, lists, tuples, dicts
and descriptions of tensors from them; nothing is imported, nothing is called. Any other opcode or global is refused.
"""

import math
import pickletools
import struct
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import ml_dtypes
import numpy as np

from osjax.weights.tensor_file import extent

MAX_OPCODES = 5_000_000  # the largest checkpoint of Open-Sora needs forty thousand

STORAGES = {
    "torch.DoubleStorage": np.dtype(np.float64),
    "torch.FloatStorage": np.dtype(np.float32),
    "torch.HalfStorage": np.dtype(np.float16),
    "torch.BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch.LongStorage": np.dtype(np.int64),
    "torch.IntStorage": np.dtype(np.int32),
    "torch.ShortStorage": np.dtype(np.int16),
    "torch.CharStorage": np.dtype(np.int8),
    "torch.ByteStorage": np.dtype(np.uint8),
    "torch.BoolStorage": np.dtype(np.bool_),
    "torch.storage.UntypedStorage": np.dtype(np.uint8),
}
DTYPES = {  # of tensors whose storage is untyped
    "torch.float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "torch.float8_e5m2": np.dtype(ml_dtypes.float8_e5m2),
    "torch.uint16": np.dtype(np.uint16),
    "torch.uint32": np.dtype(np.uint32),
    "torch.uint64": np.dtype(np.uint64),
}
ORDERED_DICT = "collections.OrderedDict"
TENSORS = tuple(f"torch._utils._rebuild_tensor{version}" for version in ("", "_v2", "_v3"))
PARAMETERS = ("torch._utils._rebuild_parameter", "torch.nn.parameter.Parameter")
GLOBALS = {*STORAGES, *DTYPES, ORDERED_DICT, *TENSORS, *PARAMETERS}


@dataclass(frozen=True)
class Global:
    """A name that the pickle mentions. It stays a name."""

    name: str


@dataclass(frozen=True)
class StorageRef:
    """A storage that a pickle names. key: where the checkpoint keeps its bytes. length: in elements of dtype."""

    key: str
    dtype: np.dtype
    length: int


@dataclass(frozen=True)
class TensorRef:
    """A tensor in a storage. offset, strides: in elements of dtype."""

    storage: StorageRef
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Refused(Exception):
    """Why a pickle is not read; becomes a UserError with the file's name."""


def interpret(stream: BytesIO, wide: bool = False) -> Any:
    """The object that the pickle at the stream's place describes; the stream then stands after it.

    wide: whether it may be a number of more than 64 bits.
    Raises Refused for whatever tensors do not need. Time and memory are linear in the bytes read.
    """
    machine = _Machine(128 if wide else 64)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count > MAX_OPCODES:
                raise Refused("its pickle is longer than any weights need")
            machine.step(opcode.name, argument)
        return machine.result()
    except (IndexError, KeyError, TypeError, ValueError, OverflowError, struct.error) as error:
        raise Refused(f"its pickle is damaged ({type(error).__name__}: {str(error)[:100]})") from error


_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_ARGUMENT = set(
    "BININT BININT1 BININT2 INT LONG LONG1 LONG4 BINFLOAT FLOAT BINUNICODE SHORT_BINUNICODE BINUNICODE8 UNICODE "
    "BINSTRING SHORT_BINSTRING STRING BINBYTES SHORT_BINBYTES BINBYTES8".split()
)
_GET = {"GET", "BINGET", "LONG_BINGET"}
_PUT = {"PUT", "BINPUT", "LONG_BINPUT"}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    """Stack and memo of one pickle."""

    def __init__(self, bits: int):
        self.bits = bits
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def result(self) -> Any:
        if len(self.stack) != 1:
            raise Refused("its pickle is damaged (it ends in the middle)")
        return self.stack[0]

    def step(self, opcode: str, argument: Any) -> None:
        stack = self.stack
        if opcode in ("PROTO", "FRAME", "STOP"):
            return
        if opcode in _CONSTANTS:
            stack.append(_CONSTANTS[opcode])
        elif opcode in _ARGUMENT:
            stack.append(self._small(argument))
        elif opcode in _EMPTY:
            stack.append(_EMPTY[opcode]())
        elif opcode == "MARK":
            stack.append(_MARK)
        elif opcode in _GET:
            stack.append(self.memo[int(argument)])
        elif opcode in _PUT:
            self.memo[int(argument)] = self._top()
        elif opcode == "MEMOIZE":
            self.memo[len(self.memo)] = self._top()
        elif opcode == "GLOBAL":
            stack.append(_global(*argument.split(" ", 1)))
        elif opcode == "STACK_GLOBAL":
            name, module = self._pop(), self._pop()
            stack.append(_global(module, name))
        elif opcode in _TUPLES:
            stack.append(tuple(self._pop() for _ in range(_TUPLES[opcode]))[::-1])
        else:
            self._step_on_containers(opcode)

    def _step_on_containers(self, opcode: str) -> None:
        stack = self.stack
        if opcode == "TUPLE":
            stack.append(tuple(self._pop_mark()))
        elif opcode == "LIST":
            stack.append(self._pop_mark())
        elif opcode == "DICT":
            stack.append(_set_items({}, self._pop_mark()))
        elif opcode in ("APPEND", "APPENDS"):
            items = [self._pop()] if opcode == "APPEND" else self._pop_mark()
            _of_type(self._top(), list).extend(items)
        elif opcode in ("SETITEM", "SETITEMS"):
            items = [self._pop(), self._pop()][::-1] if opcode == "SETITEM" else self._pop_mark()
            _set_items(_of_type(self._top(), dict), items)
        elif opcode == "REDUCE":
            arguments, called = _of_type(self._pop(), tuple), self._pop()
            stack.append(_rebuild(called, arguments))
        elif opcode == "BUILD":  # attributes of a state dict, such as versions of its modules
            self._pop()
            _of_type(self._top(), dict)
        elif opcode == "BINPERSID":
            stack.append(_storage(self._pop()))
        elif opcode == "POP":
            self._pop()
        else:
            raise Refused(f"its pickle uses {opcode}, which weights do not need")

    def _small(self, value: Any) -> Any:
        if isinstance(value, int) and value.bit_length() > self.bits:  # a million digits make any arithmetic hang
            raise Refused(f"its pickle holds a number of more than {self.bits} bits")
        return value

    def _top(self) -> Any:
        if self.stack[-1] is _MARK:
            raise ValueError("a mark in place of a value")
        return self.stack[-1]

    def _pop(self) -> Any:
        value = self._top()
        self.stack.pop()
        return value

    def _pop_mark(self) -> list[Any]:
        items = []
        while (value := self.stack.pop()) is not _MARK:
            items.append(value)
        return items[::-1]


def _of_type(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{type(value).__name__} in place of {kind.__name__}")
    return value


def _global(module: Any, name: Any) -> Global:
    full = f"{_of_type(module, str)}.{_of_type(name, str)}"
    if full not in GLOBALS:
        raise Refused(
            f"it asks to run {full[:100]!r}, which tensors do not need and which may be malicious; "
            "get the weights as .safetensors, or save only the state dict"
        )
    return Global(full)


def _set_items(target: dict, items: list[Any]) -> dict:
    if len(items) % 2:
        raise ValueError("a key without a value")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(key) not in (str, int):  # hashing anything nested could be made to recurse without end
            raise Refused(f"its pickle has a key of type {type(key).__name__}")
        target[key] = value
    return target


def _rebuild(called: Any, arguments: tuple) -> Any:
    name = _of_type(called, Global).name
    if name == ORDERED_DICT:
        pairs = arguments[0] if arguments else []
        return _set_items({}, [part for pair in _of_type(pairs, list) for part in _pair(pair)])
    if name in PARAMETERS:
        return _of_type(arguments[0], TensorRef)
    if name in TENSORS:
        storage, offset, shape, strides = arguments[:4]
        dtype = _of_type(storage, StorageRef).dtype
        if name == TENSORS[-1]:
            dtype = DTYPES[_of_type(arguments[6], Global).name]
        return _checked(TensorRef(storage, dtype, offset, tuple(_sizes(shape)), tuple(_sizes(strides))))
    raise Refused(f"its pickle calls {name}")


def _pair(pair: Any) -> tuple | list:
    if type(pair) not in (tuple, list) or len(pair) != 2:
        raise ValueError("a pair was expected")
    return pair


def _sizes(values: Any) -> tuple | list:
    if type(values) not in (tuple, list) or len(values) > 32:
        raise ValueError("sizes were expected")
    if any(type(n) is not int or not 0 <= n < 2**48 for n in values):
        raise ValueError("a size is no count")
    return values


def _checked(tensor: TensorRef) -> TensorRef:
    """The tensor, if it lies in its storage and no element is told of twice (which could fill any memory)."""
    _sizes([tensor.offset])
    if len(tensor.shape) != len(tensor.strides):
        raise ValueError("sizes and strides differ in number")
    length = tensor.storage.length * tensor.storage.dtype.itemsize // tensor.dtype.itemsize
    if 0 not in tensor.shape:
        end = tensor.offset + extent(tensor.shape, tensor.strides)
        if end > length or math.prod(tensor.shape) > length:
            raise Refused(f"a tensor of {tensor.shape} does not fit its storage of {length} values")
    return tensor


def _storage(identity: Any) -> StorageRef:
    """The storage of a persistent id: ("storage", type, key, location, elements), and in old files None for a view."""
    if type(identity) is not tuple or len(identity) not in (5, 6) or identity[0] != "storage":
        raise ValueError("a persistent id that is no storage")
    _, kind, key, _, length = identity[:5]
    if len(identity) == 6 and identity[5] is not None:
        raise Refused("it stores views of storages; save it anew with a PyTorch of this decade")
    name = _of_type(kind, Global).name
    if name not in STORAGES:
        raise ValueError(f"{name} is no storage")
    _sizes([length])
    return StorageRef(_of_type(key, str), STORAGES[name], length)
