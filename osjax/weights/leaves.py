"""Parameters that are read piece by piece, so that no more of them than a device's part need ever be in memory."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from math import prod
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from numpy.typing import DTypeLike

from osjax.errors import UserError
from osjax.weights.rules import Path, Rule, Window, check_names, check_table, extent, whole

STEP = 2**26  # bytes that are read at once, where there is a choice
COLUMNS = 16  # of a transposed copy at a time: fastest of 8, 16, 32, 64 for linear layers (docs/performance.md)


@dataclass(frozen=True)
class Leaves:
    """The leaves of a params tree, each read when and as far as it is asked for.

    shapes, dtypes: of every leaf by its path. read(path, window): a window of a leaf as a numpy array.
    """

    shapes: Mapping[Path, tuple[int, ...]]
    dtypes: Mapping[Path, np.dtype]
    read: Callable[[Path, Window], np.ndarray]

    def parameters(self) -> int:
        """Number of values of all leaves."""
        return sum(map(prod, self.shapes.values()))

    def tree(self) -> dict[str, Any]:
        """The params tree of numpy arrays, read whole."""
        return unflatten_dict({path: self.read(path, whole(shape)) for path, shape in self.shapes.items()})

    def cast(self, dtype: DTypeLike | None) -> "Leaves":
        """The leaves with their values as `dtype`, converted as they are read; None leaves every leaf as it is."""
        if dtype is None:
            return self
        dtype = np.dtype(dtype)
        return Leaves(
            self.shapes,
            dict.fromkeys(self.shapes, dtype),
            lambda path, window: self.read(path, window).astype(dtype, copy=False),
        )


def of_params(params: Mapping) -> Leaves:
    """The leaves of `params`, a tree of arrays."""
    flat = flatten_dict(params)
    return Leaves(
        {path: tuple(x.shape) for path, x in flat.items()},
        {path: np.dtype(x.dtype) for path, x in flat.items()},
        lambda path, window: np.asarray(flat[path][window]),
    )


def of_tensors(table: Sequence[Rule], shapes: Mapping[Path, tuple[int, ...]], tensors: Mapping[str, Any]) -> Leaves:
    """The leaves that tensors with the original's names make.

    table: the weight map. shapes: of the leaves. tensors: by name, with `.shape`, `.dtype` and slicing.
    Raises UserError listing every missing, unexpected and misshapen tensor at once; ValueError for a wrong table.
    """
    # First every tensor gets all its names, so that the check of names sees a complete file; then second names go,
    # since each leaf is to be filled once.
    tensors = _one_name_each(table, tensors)
    check_names(table, tensors)
    table = [rule for rule in table if rule.alias_of is None]
    check_table(table, shapes)
    by_leaf: dict[Path, list[Rule]] = {}
    for rule in table:
        by_leaf.setdefault(rule.leaf, []).append(rule)
    dtypes = {path: _common_dtype(tensors[rule.torch].dtype for rule in rules) for path, rules in by_leaf.items()}

    def read(path: Path, window: Window) -> np.ndarray:
        out = np.empty(extent(window), dtypes[path])
        for rule in by_leaf[path]:
            _fill(out, window, rule, shapes[path], tensors[rule.torch])
        return out

    return Leaves(shapes, dtypes, read)


def _fill(out: np.ndarray, window: Window, rule: Rule, leaf_shape: tuple[int, ...], tensor: Any) -> None:
    """Write what a rule has of a window of its leaf into `out`, which holds that window."""
    # Three coordinate systems meet here. `window` is in those of the leaf; `out` begins where the window does; a rule's
    # values begin where its place `at` in the leaf does. Where `at` is one index, such as a block of a stack, the
    # rule's values lack that axis.
    inside, wanted = [], []  # index into out; window of the rule's own values
    for w, at in zip(window, whole(leaf_shape, rule.at), strict=True):
        first, last = (at.start, at.stop) if isinstance(at, slice) else (at, at + 1)
        start, stop = max(first, w.start), min(last, w.stop)
        if start >= stop:  # this rule has nothing in the window: its tensor is not touched
            return
        if isinstance(at, slice):
            inside.append(slice(start - w.start, stop - w.start))
            wanted.append(slice(start - first, stop - first))
        else:
            inside.append(at - w.start)
    part = whole(rule.shape, rule.part)
    if rule.op.pull is None:  # which part of the tensor would do is not known: read it whole, then cut
        value = rule.op.to_leaf(np.asarray(tensor[part]))[tuple(wanted)]
    else:
        inner, finish = rule.op.pull(tuple(wanted))
        shifted = (slice(p.start + i.start, p.start + i.stop) for p, i in zip(part, inner, strict=True))
        value = finish(np.asarray(tensor[tuple(shifted)]))
    if out[tuple(inside)].shape != value.shape:
        raise ValueError(f"{rule.torch}: {value.shape} does not fit {'/'.join(rule.leaf)}{rule.at}")
    _copy(out, tuple(inside), value)


def _copy(out: np.ndarray, where: tuple, value: np.ndarray) -> None:
    """`out[where] = value`; transposed values a few columns at a time, which stay in the processor's cache."""
    if value.ndim < 2 or value.strides[-1] == value.itemsize:
        out[where] = value
        return
    part = out[where]
    for first in range(0, value.shape[-1], COLUMNS):
        part[..., first : first + COLUMNS] = value[..., first : first + COLUMNS]


def to_tensors(table: Sequence[Rule], leaves: Leaves) -> tuple[dict[str, tuple[tuple[int, ...], np.dtype]], Callable]:
    """({torch name: (shape, dtype)}, read) of a model's leaves, where read(name) makes that tensor.

    table: the weight map. The inverse of `of_tensors`.
    """
    by_name: dict[str, list[Rule]] = {}
    for rule in table:
        by_name.setdefault(rule.torch, []).append(rule)
    known = {
        name: (tuple(rules[0].shape), _common_dtype(leaves.dtypes[rule.leaf] for rule in rules))
        for name, rules in by_name.items()
    }

    def read(name: str) -> np.ndarray:
        tensor = np.empty(*known[name])
        for rule in by_name[name]:
            # Leaves are read by windows, which keep every axis: one index becomes a slice of one, and its axis goes
            # after.
            at = whole(leaves.shapes[rule.leaf], rule.at)
            window = tuple(i if isinstance(i, slice) else slice(i, i + 1) for i in at)
            value = leaves.read(rule.leaf, window)
            value = value[tuple(slice(None) if isinstance(i, slice) else 0 for i in at)]
            _copy(tensor, rule.part, rule.op.to_torch(value))
        return tensor

    return known, read


def _one_name_each(table: Sequence[Rule], tensors: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tensors with both names of every tensor that has two. UserError where a file holds both, but unlike."""
    tensors = dict(tensors)
    for rule in table:
        if rule.alias_of is None:
            continue
        names = [name for name in (rule.alias_of, rule.torch) if name in tensors]
        if len(names) == 2 and not _equal(*(tensors[name] for name in names)):
            raise UserError(f"{names[0]} and {names[1]} are one tensor of this model, but differ in the file")
        if len(names) == 1:
            tensors[rule.alias_of] = tensors[rule.torch] = tensors[names[0]]
    return tensors


def _equal(a: Any, b: Any) -> bool:
    if tuple(a.shape) != tuple(b.shape):
        return False
    return all(np.array_equal(np.asarray(a[w]), np.asarray(b[w])) for w in slabs(tuple(a.shape), a.dtype.itemsize))


def slabs(shape: tuple[int, ...], itemsize: int, step: int = STEP) -> Iterator[Window]:
    """Windows along the first axis that together are an array of this shape, each of about `step` bytes.

    itemsize: bytes of a value.
    """
    if not shape:
        yield ()
        return
    rows = max(1, step // max(1, prod(shape[1:]) * itemsize))
    for start in range(0, shape[0], rows):
        yield whole(shape, (slice(start, min(start + rows, shape[0])),))


def _common_dtype(dtypes) -> np.dtype:
    return np.dtype(reduce(lambda a, b: a if a == b else np.promote_types(a, b), dtypes))
