"""Weight maps that run both ways from one table.

A table is a list of `Rule`s. A rule says where one torch tensor, or a part of it, lives in the Flax tree.
Import (`leaves.of_tensors`) and export (`leaves.to_tensors`) read the same rules, piece by piece where pieces will do.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from osjax.errors import UserError
from osjax.models.shapes import Path, Shape, listed
from osjax.weights import prefix

SHOWN = 5  # problems of each kind in a message
Window = tuple[slice, ...]  # a start and a stop for every axis
Pull = Callable[[Window], tuple[Window, Callable[[np.ndarray], np.ndarray]]]


@dataclass(frozen=True)
class Op:
    """An invertible change of layout. `to_leaf` maps torch values to leaf values, `to_torch` is its inverse.

    pull: for a window of the leaf values, the window of torch values that it is made of, and what makes it of them.
    None where all torch values are needed for any of the leaf's.
    """

    to_leaf: Callable[[np.ndarray], np.ndarray]
    to_torch: Callable[[np.ndarray], np.ndarray]
    pull: Pull | None = None

    def __matmul__(self, first: "Op") -> "Op":
        """`a @ b` applies b first on the way in, as functions compose."""

        def pull(window: Window):
            between, second_half = self.pull(window)
            inner, first_half = first.pull(between)
            return inner, lambda x: second_half(first_half(x))

        return Op(
            lambda x: self.to_leaf(first.to_leaf(x)),
            lambda y: first.to_torch(self.to_torch(y)),
            pull if self.pull and first.pull else None,
        )


def transpose(*axes: int) -> Op:
    """The op that puts axis axes[i] of the torch values where axis i of the leaf is, as in numpy."""
    inverse = tuple(np.argsort(axes))

    def pull(window: Window):
        return tuple(window[i] for i in inverse), lambda x: x.transpose(axes)

    return Op(lambda x: x.transpose(axes), lambda y: y.transpose(inverse), pull)


def reshape(torch_shape: Sequence[int], leaf_shape: Sequence[int]) -> Op:
    """The op that gives values of torch_shape the shape leaf_shape, in C order."""
    torch_shape, leaf_shape = tuple(torch_shape), tuple(leaf_shape)
    groups = _matching_axes(torch_shape, leaf_shape)

    def pull(window: Window):
        inner, whole, crop = [], [], []  # of torch values; leaf values made of those; window inside these
        for ours, theirs in groups:
            part = _pull_axes([torch_shape[i] for i in ours], [(window[i], leaf_shape[i]) for i in theirs])
            for collected, new in zip((inner, whole, crop), part, strict=True):
                collected += new
        return tuple(inner), lambda x: x.reshape(whole)[tuple(crop)]

    return Op(lambda x: x.reshape(leaf_shape), lambda y: y.reshape(torch_shape), pull if groups else None)


def _matching_axes(a: Shape, b: Shape) -> list[tuple[list[int], list[int]]]:
    """Smallest groups of neighbouring axes of both shapes that hold equally many values. Empty for empty arrays."""
    groups, i, j = [], 0, 0
    while i < len(a) and j < len(b) and prod(a) == prod(b) != 0:
        ours, theirs = [i], [j]
        while (left := prod(a[k] for k in ours)) != (right := prod(b[k] for k in theirs)):
            (ours if left < right else theirs).append((ours if left < right else theirs)[-1] + 1)
        i, j = ours[-1] + 1, theirs[-1] + 1
        groups.append((ours, theirs))
    if groups:  # axes of size 1 that are left over
        groups[-1][0].extend(range(i, len(a)))
        groups[-1][1].extend(range(j, len(b)))
    return groups


def _pull_axes(torch_sizes: list[int], leaf: list[tuple[slice, int]]) -> tuple[list[slice], list[int], list[slice]]:
    """One group of axes: torch window, shape of the leaf values that it gives, wanted window among those.

    torch_sizes: of the group's axes in torch. leaf: (wanted window, size) of each of its axes in the leaf.
    """
    (first, _), inside = leaf[0], [size for _, size in leaf[1:]]
    if len(torch_sizes) == 1:  # one axis split in several: whole steps of the first
        step, count = prod(inside), first.stop - first.start
        crop = [slice(0, count), *(window for window, _ in leaf[1:])]
        return [slice(first.start * step, first.stop * step)], [count, *inside], crop
    if len(leaf) == 1:  # several axes merged into one: whole steps of the first of them
        step = prod(torch_sizes[1:])
        start, stop = first.start // step, -(-first.stop // step)
        crop = [slice(first.start - start * step, first.stop - start * step)]
        return [slice(start, stop), *(slice(0, n) for n in torch_sizes[1:])], [(stop - start) * step], crop
    return [slice(0, n) for n in torch_sizes], [size for _, size in leaf], [window for window, _ in leaf]


def take(order: np.ndarray, axis: int) -> Op:
    """The op that permutes one axis: leaf[i] = torch[order[i]]."""
    inverse = np.argsort(order)

    def pull(window: Window):
        inner, wanted = list(window), order[window[axis]]
        inner[axis] = slice(int(wanted.min()), int(wanted.max()) + 1)
        return tuple(inner), lambda x: np.take(x, wanted - inner[axis].start, axis)

    return Op(lambda x: np.take(x, order, axis), lambda y: np.take(y, inverse, axis), pull)


SAME = Op(lambda x: x, lambda y: y, lambda window: (window, lambda x: x))
LINEAR = transpose(1, 0)  # torch (out, in) -> flax (in, out)


@dataclass(frozen=True)
class Rule:
    """One torch tensor (or `part` of it) and its place.

    torch:    state-dict name.
    shape:    shape of the whole torch tensor.
    leaf:     path in the params tree.
    op:       layout change from torch values to leaf values.
    at:       index into the leaf, such as (block,) where scan stacks blocks, or (block, slice(None), 0) for q.
    part:     index into the torch tensor, where one tensor feeds several leaves.
    alias_of: for a second name of the same tensor: the first. A file may hold either or both; export writes both.
    """

    torch: str
    shape: Shape
    leaf: Path
    op: Op = SAME
    at: tuple[Any, ...] = ()
    part: tuple[slice, ...] = ()
    alias_of: str | None = None


def torch_shapes(table: Sequence[Rule]) -> dict[str, Shape]:
    """Shape of every torch tensor that the table knows, by its name. Allocates nothing."""
    return {rule.torch: tuple(rule.shape) for rule in table}


def whole(shape: Sequence[int], index: Sequence[Any] = ()) -> tuple[Any, ...]:
    """The index of an array of this shape with an entry for every axis; slices get their start and stop."""
    index = tuple(index) + (slice(None),) * (len(shape) - len(index))
    return tuple(slice(*i.indices(n)[:2]) if isinstance(i, slice) else i for i, n in zip(index, shape, strict=True))


def extent(window: Window) -> Shape:
    """The shape of what a window cuts out."""
    return tuple(w.stop - w.start for w in window)


def check_names(table: Sequence[Rule], tensors: Mapping[str, Any]) -> None:
    """UserError with the first missing, unexpected and misshapen tensors and how many more there are, at once.

    tensors: by name, with `.shape`; they should be those of the table.
    """
    expected = torch_shapes(table)
    if before := prefix.of(tensors.keys(), expected):
        raise UserError(f"weights do not fit the model: their names begin with {before!r}, take that off")
    missing = [f"missing {name} {shape}" for name, shape in expected.items() if name not in tensors]
    surplus = [f"unexpected {name} {tuple(t.shape)}" for name, t in tensors.items() if name not in expected]
    misshapen = [
        f"{name} has shape {tuple(tensors[name].shape)}, the model needs {shape}"
        for name, shape in expected.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    if missing or surplus or misshapen:
        shown = "; ".join(listed(problems, SHOWN) for problems in (missing, surplus, misshapen) if problems)
        raise UserError(f"weights do not fit the model: {shown}. Check the model config and the layout.")


def check_table(table: Sequence[Rule], shapes: Mapping[Path, Shape]) -> None:
    """ValueError where the table itself leaves part of a leaf unfilled, fills it twice, or names one that is not.

    shapes: of the leaves by path.
    """
    filled = dict.fromkeys(shapes, 0)
    for rule in table:
        if rule.leaf not in shapes:
            raise ValueError(f"table of weights names {'/'.join(rule.leaf)}, which the model does not have")
        at = whole(shapes[rule.leaf], rule.at)
        filled[rule.leaf] += prod(extent(tuple(i for i in at if isinstance(i, slice))))
    for path, shape in shapes.items():
        if filled[path] != prod(shape):
            raise ValueError(f"table of weights fills {filled[path]} of {prod(shape)} values of {'/'.join(path)}")
