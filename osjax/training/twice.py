"""A step done twice from one state: a device that computes rightly gives the same bits both times."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from osjax.errors import UserError
from osjax.types import Tree

KINDS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}  # by bytes of a number


@jax.jit
def _sums(leaves: list[jax.Array]) -> list[jax.Array]:
    return [_sum(leaf) for leaf in leaves]


def _sum(x: jax.Array) -> jax.Array:
    """A number of the bits of an array; whatever bit of it changes, the number does."""
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    bits = x.astype(jnp.uint8) if x.dtype == bool else jax.lax.bitcast_convert_type(x, KINDS[x.dtype.itemsize])
    bits = bits.astype(jnp.uint32)
    # Odd weights, so that no bit is lost, and others for every place along every axis, so that two do not cancel.
    weights = jnp.uint32(1)
    for axis in range(x.ndim):
        weights = weights * jnp.uint32(2654435761) + 2 * jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
    return jnp.sum(bits * weights, dtype=jnp.uint32)


def sums(tree: Tree) -> dict[str, int]:
    """A number of the bits of each array of a tree, by the array's path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    values = jax.device_get(_sums([leaf for _, leaf in leaves]))
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    return {name: int(value) for name, value in zip(names, values, strict=True)}


def of_results(state: Tree, metrics: Tree) -> dict[str, int]:
    """`sums` of what a step gives: its state and its metrics."""
    return sums({"state": state, "metrics": metrics})


def different(first: dict[str, int], second: dict[str, int]) -> list[str]:
    """The paths whose numbers differ."""
    return [name for name in first if first[name] != second.get(name)]


def copy(tree: Tree) -> Tree:
    """A tree of the same arrays in other memory, each on the devices where it was."""
    return jax.tree.map(jnp.copy, tree)


def words(step: int, names: list[str]) -> str:
    """What is said of a step whose two results differ in these arrays."""
    more = f" and {len(names) - 1} more arrays" if len(names) > 1 else ""
    return f"step {step} done twice gave different bits in {names[0]}{more}: a device computes wrongly"


def twice(
    step_fn: Callable[..., tuple[Tree, Tree]], step: int, state: Tree, batch: Tree, key: jax.Array
) -> tuple[Tree, Tree]:
    """The results of `step_fn(state, batch, key)`, which is called on a copy of the state first.

    step: its number, for the message. state: is gone afterwards, and takes twice its memory meanwhile. UserError where
    the results differ in any bit.
    """
    first = of_results(*step_fn(copy(state), batch, key))
    after = step_fn(state, batch, key)
    if names := different(first, of_results(*after)):
        raise UserError(
            f"{words(step, names)}; nothing of it is saved: run the command again without that device, it goes on from "
            "the last checkpoint"
        )
    return after
