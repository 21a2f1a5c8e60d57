"""Shardings of states and batches, and initialisation that never holds the whole model on one device."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import flax.linen as nn
import jax
from jax.extend.core import jaxpr_as_fun
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from osjax.parallel.rules import TRANSFORMER, MeshAxes, spec
from osjax.types import Tree


def _is_boxed(x: Any) -> bool:
    return isinstance(x, nn.LogicallyPartitioned)


def _fit(partition: PartitionSpec, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """Drop mesh axes from dimensions that they do not divide: such a dimension is replicated, never padded."""
    parts = []
    for size, axes in zip(shape, tuple(partition) + (None,) * (len(shape) - len(partition)), strict=True):
        names = () if axes is None else (axes,) if isinstance(axes, str) else tuple(axes)
        parts.append(axes if size % math.prod(mesh.shape[name] for name in names) == 0 else None)
    return PartitionSpec(*parts)


def of_boxed(boxed: Tree, mesh: Mesh, rules: Mapping[str, MeshAxes] = TRANSFORMER) -> Tree:
    """NamedShardings for a pytree whose leaves may be boxed with logical names (from `eval_shape`).

    rules: mesh axes of each logical name (`parallel/rules.py`).
    Leaves without names (counters, scalars) are replicated. The result has the structure of the unboxed tree.
    """

    def one(leaf):
        if not _is_boxed(leaf):
            return NamedSharding(mesh, PartitionSpec())
        if not jax.tree.leaves(leaf.value):  # what an update rule keeps of a parameter that another one takes: nothing
            return leaf.value
        return NamedSharding(mesh, _fit(spec(leaf.names, rules), leaf.value.shape, mesh))

    return jax.tree.map(one, boxed, is_leaf=_is_boxed)


class Init:
    """`init(*args)`, which gives a boxed pytree: its shapes, its shardings, and its arrays, from a single trace.

    boxed:     its shapes, boxed with their logical names.
    shardings: where each of its arrays goes; a tree like the unboxed one.
    """

    def __init__(self, init: Callable[..., Any], mesh: Mesh, *args, rules: Mapping[str, MeshAxes] = TRANSFORMER):
        closed, self.boxed = jax.make_jaxpr(init, return_shape=True)(*args)
        self.shardings = of_boxed(self.boxed, mesh, rules)
        self._run, self._args = jaxpr_as_fun(closed), args
        self._on_cpu = mesh.devices.flat[0].platform == "cpu"

    def make(self) -> Tree:
        """The arrays, unboxed; each device makes only its own shards."""
        places, structure = jax.tree.flatten(self.shardings)
        # It runs once, and on a CPU the compiler spends far longer on unrolled random bits than they take: 14 s or 3 s.
        options = {"xla_backend_optimization_level": 1} if self._on_cpu else None
        made = jax.jit(self._run, out_shardings=places, compiler_options=options)(*jax.tree.leaves(self._args))
        return jax.tree.unflatten(structure, made)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Batches split their first axis over data and fsdp."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def ways(axis: str) -> int:
    """Size of an axis of the mesh that is in force where this is traced (see `under`); 1 where there is none."""
    return jax.sharding.get_abstract_mesh().shape.get(axis, 1)


def partition(names: tuple[str | None, ...], shape: tuple[int, ...]) -> PartitionSpec | None:
    """Mesh axes of an array with these logical names under the mesh and rules in force; None where there are none.

    KeyError for a name without a rule. Mesh axes that do not divide a dimension are dropped.
    """
    mesh, rules = jax.sharding.get_abstract_mesh(), dict(nn.get_logical_axis_rules())
    if mesh.empty or not rules:
        return None
    return _fit(spec(names, rules), shape, mesh)


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
    """x, split over the mesh as its logical names say. Outside `under` x as it is."""
    split = partition(names, x.shape)
    return x if split is None else jax.lax.with_sharding_constraint(x, split)


def gather(kernel: jax.Array, *names: str) -> jax.Array:
    """A kernel that is whole along the axes which only store it (fsdp, sequence), still split over `tensor`.

    Said outright, because the compiler may otherwise move activations, or keep the kernels of all blocks gathered.
    """
    stored = partition(names, kernel.shape)
    return kernel if stored is None else _through(kernel, _stages(stored)[1:])


def scatter(dkernel: jax.Array, *names: str) -> jax.Array:
    """The inverse of `gather` for a kernel's gradient: summed over the devices and split as the kernel is stored.

    Not by stages where there is a data axis, over which each stage's result would be summed: with sequences split in
    four that is four times the bytes between hosts.
    """
    stored = partition(names, dkernel.shape)
    if stored is None:
        return dkernel
    return _through(dkernel, [stored] if ways("data") > 1 else _stages(stored)[-2::-1])


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def gathered(kernel: jax.Array, names: tuple[str, ...]) -> jax.Array:
    """`gather` for products that autodiff differentiates: the gradient of the kernel is `scatter`ed."""
    return gather(kernel, *names)


gathered.defvjp(lambda kernel, names: (gather(kernel, *names), None), lambda names, _, d: (scatter(d, *names),))


def _stages(stored: PartitionSpec) -> list[PartitionSpec]:
    """As stored, without sequence, without fsdp: one mesh axis at a time.

    Over both at once, and so over a whole cube of TPUs, the compiler gathers by an all-reduce of twice the bytes.
    """

    def without(spec: PartitionSpec, *dropped: str) -> PartitionSpec:
        parts = (() if p is None else (p,) if isinstance(p, str) else p for p in spec)
        kept = (tuple(name for name in part if name not in dropped) for part in parts)
        return PartitionSpec(*(part[0] if len(part) == 1 else part or None for part in kept))

    return [stored, without(stored, "sequence"), without(stored, "sequence", "fsdp", "data")]


def _through(x: jax.Array, specs: list[PartitionSpec]) -> jax.Array:
    for spec_ in specs:
        x = jax.lax.with_sharding_constraint(x, spec_)
    return x


def random_key(seed: int, mesh: Mesh) -> jax.Array:
    """A random key on every device of every host, all alike (`device_put` cannot reach devices of other hosts)."""
    return jax.jit(lambda: jax.random.key(seed), out_shardings=replicated(mesh))()


@contextmanager
def under(mesh: Mesh, rules: Mapping[str, MeshAxes] = TRANSFORMER) -> Iterator[None]:
    """Inside, the logical constraints of a model's activations mean axes of this mesh (when traced here)."""
    with jax.set_mesh(mesh), nn.logical_axis_rules(list(rules.items())):
        yield


class Step:
    """A compiled `(state, batch, key) -> (state, metrics)` of a mesh. Call it, or `lower` it with shapes."""

    def __init__(self, step: Callable[..., Any], state_shardings: Tree, mesh: Mesh, rules: Mapping[str, MeshAxes]):
        self._mesh, self._rules = mesh, rules
        self._jitted = jax.jit(
            step,
            donate_argnums=0,
            in_shardings=(state_shardings, batch_sharding(mesh), replicated(mesh)),
            out_shardings=(state_shardings, replicated(mesh)),
        )

    def __call__(self, state: Any, batch: Tree, key: jax.Array) -> Any:
        with under(self._mesh, self._rules):
            return self._jitted(state, batch, key)

    def lower(self, state: Any, batch: Tree, key: Any) -> jax.stages.Lowered:
        """The program for shapes (`ShapeDtypeStruct`s), also of a mesh of devices that are not there."""
        with under(self._mesh, self._rules):
            return self._jitted.lower(state, batch, key)


def jit_step(
    step: Callable[..., Any], state_shardings: Tree, mesh: Mesh, rules: Mapping[str, MeshAxes] = TRANSFORMER
) -> Step:
    """Compile `step`, `(state, batch, key) -> (state, metrics)`, for the mesh. The state's buffers are donated.

    state_shardings: where the state lies, before and after (`of_boxed`). rules: mesh axes of each logical name.
    """
    return Step(step, state_shardings, mesh, rules)
