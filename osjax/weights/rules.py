"""Weight maps that run both ways from one table.

A table is a list of `Rule`s. A rule says where one torch tensor, or a part of it, lives in the Flax tree.
Import and export read the same rules, and both check that every torch key is used once and every leaf is filled once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from osjax.errors import UserError

Path = tuple[str, ...]


@dataclass(frozen=True)
class Op:
    """An invertible change of layout. `to_leaf` maps torch values to leaf values, `to_torch` is its inverse."""

    to_leaf: Callable[[np.ndarray], np.ndarray]
    to_torch: Callable[[np.ndarray], np.ndarray]

    def __matmul__(self, first: "Op") -> "Op":
        """`a @ b` applies b first on the way in, as functions compose."""
        return Op(lambda x: self.to_leaf(first.to_leaf(x)), lambda y: first.to_torch(self.to_torch(y)))


def transpose(*axes: int) -> Op:
    inverse = tuple(np.argsort(axes))
    return Op(lambda x: x.transpose(axes), lambda y: y.transpose(inverse))


def reshape(torch_shape: Sequence[int], leaf_shape: Sequence[int]) -> Op:
    return Op(lambda x: x.reshape(tuple(leaf_shape)), lambda y: y.reshape(tuple(torch_shape)))


def take(order: np.ndarray, axis: int) -> Op:
    """Permute one axis: leaf[i] = torch[order[i]]."""
    inverse = np.argsort(order)
    return Op(lambda x: np.take(x, order, axis), lambda y: np.take(y, inverse, axis))


SAME = Op(lambda x: x, lambda y: y)
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
    shape: tuple[int, ...]
    leaf: Path
    op: Op = SAME
    at: tuple[Any, ...] = ()
    part: tuple[slice, ...] = ()
    alias_of: str | None = None


def torch_shapes(table: Sequence[Rule]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every torch tensor that the table knows. Allocates nothing."""
    return {rule.torch: tuple(rule.shape) for rule in table}


def _one_name_each(table: Sequence[Rule], tensors: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tensors with both names of every tensor that has two. UserError where a file holds both, but unlike."""
    tensors = dict(tensors)
    for rule in table:
        if rule.alias_of is None:
            continue
        names = [name for name in (rule.alias_of, rule.torch) if name in tensors]
        if len(names) == 2 and not np.array_equal(*(np.asarray(tensors[name]) for name in names)):
            raise UserError(f"{names[0]} and {names[1]} are one tensor of this model, but differ in the file")
        if len(names) == 1:
            tensors[rule.alias_of] = tensors[rule.torch] = tensors[names[0]]
    return tensors


def _check_names(table: Sequence[Rule], tensors: Mapping[str, Any]) -> None:
    expected = torch_shapes(table)
    problems = [f"missing {name} {shape}" for name, shape in expected.items() if name not in tensors]
    problems += [f"unexpected {name} {tuple(t.shape)}" for name, t in tensors.items() if name not in expected]
    problems += [
        f"{name} has shape {tuple(tensors[name].shape)}, the model needs {shape}"
        for name, shape in expected.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    if problems:
        shown = "; ".join(problems[:20]) + (f"; and {len(problems) - 20} more" if len(problems) > 20 else "")
        raise UserError(f"weights do not fit the model: {shown}. Check the model config and the layout.")


def _lookup(tree: Mapping, path: Path) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _paths(tree: Any, prefix: Path = ()) -> dict[Path, Any]:
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    return {p: leaf for key, sub in tree.items() for p, leaf in _paths(sub, (*prefix, key)).items()}


def to_params(table: Sequence[Rule], leaf_shapes: Mapping, tensors: Mapping[str, np.ndarray]) -> dict:
    """Torch tensors -> params pytree of numpy arrays.

    leaf_shapes: pytree of the model's params with `.shape` leaves (from `jax.eval_shape`).
    Raises UserError listing every missing, unexpected and misshapen tensor at once; ValueError if the table itself
    leaves part of a leaf unfilled or fills it twice.
    """
    tensors = _one_name_each(table, tensors)
    _check_names(table, tensors)
    table = [rule for rule in table if rule.alias_of is None]
    flat = _paths(leaf_shapes)
    out: dict[Path, np.ndarray] = {}
    filled: dict[Path, int] = dict.fromkeys(flat, 0)
    for rule in table:
        if rule.leaf not in flat:
            raise ValueError(f"table of weights names {'/'.join(rule.leaf)}, which the model does not have")
        value = np.asarray(tensors[rule.torch])
        value = rule.op.to_leaf(value[rule.part])
        leaf = out.setdefault(rule.leaf, np.empty(flat[rule.leaf].shape, value.dtype))
        if leaf[rule.at].shape != value.shape:
            raise ValueError(
                f"{rule.torch}: {value.shape} does not fit {'/'.join(rule.leaf)}{rule.at} {leaf[rule.at].shape}"
            )
        leaf[rule.at] = value
        filled[rule.leaf] += value.size
    for path, leaf in flat.items():
        if filled[path] != int(np.prod(leaf.shape)):
            raise ValueError(
                f"table of weights fills {filled[path]} of {np.prod(leaf.shape)} values of {'/'.join(path)}"
            )
    params: dict = {}
    for path, leaf in out.items():
        node = params
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = leaf
    return params


def to_tensors(table: Sequence[Rule], params: Mapping) -> dict[str, np.ndarray]:
    """Params pytree -> torch tensors; the inverse of `to_params`, byte-equal."""
    out: dict[str, np.ndarray] = {}
    for rule in table:
        leaf = np.asarray(_lookup(params, rule.leaf))
        value = rule.op.to_torch(leaf[rule.at])
        tensor = out.setdefault(rule.torch, np.empty(rule.shape, leaf.dtype))
        tensor[rule.part] = value
    return out
