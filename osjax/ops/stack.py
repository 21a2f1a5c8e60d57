"""A stack of equal blocks as one scan, with rematerialisation by a named policy.

Scan keeps compile time flat in depth. What every block reads alike (the modulation vector, rotary angles) is
broadcast, not carried, so it is not saved once per block.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike

from osjax.errors import UserError
from osjax.ops.kernels import ATTENTION_OUT
from osjax.ops.layers import ADAPTERS, MASTER
from osjax.ops.platform import platform
from osjax.types import Axis, NamedTree, Tree

BLOCK_INPUT = "block_input"  # checkpoint name of what a block is given
BITS = jnp.uint16  # no parameter has this type

POLICIES = jax.checkpoint_policies
REMAT_POLICIES = {
    "none": None,  # keep every activation
    "full": POLICIES.nothing_saveable,  # keep only block inputs
    "save_attention": POLICIES.save_only_these_names(ATTENTION_OUT),  # full, without attention twice
    "offload": POLICIES.save_and_offload_only_these_names(  # full, with the block inputs in the host's memory
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=[BLOCK_INPUT],
        offload_src="device",
        offload_dst="pinned_host",
    ),
    "offload_save_attention": POLICIES.save_and_offload_only_these_names(  # both
        names_which_can_be_saved=[ATTENTION_OUT],
        names_which_can_be_offloaded=[BLOCK_INPUT],
        offload_src="device",
        offload_dst="pinned_host",
    ),
}


def check_remat(remat: str) -> None:
    """UserError for a policy that does not exist."""
    if remat not in REMAT_POLICIES:
        raise UserError(f"unknown remat policy {remat!r}: use one of {', '.join(REMAT_POLICIES)}")


def stack(block: type[nn.Module], depth: int, *, broadcast: int, remat: str = "none") -> type[nn.Module]:
    """A module class that runs `depth` blocks: `(carry, *broadcast inputs) -> (carry, None)`.

    Parameters gain a leading axis named `layers`. block: a module class `(carry, *inputs) -> (carry, None)`. broadcast:
    how many inputs follow the carry. remat: one of REMAT_POLICIES.
    """
    check_remat(remat)
    if remat != "none":
        # Inside scan, common-subexpression elimination cannot undo the recomputation, so its guard only costs time.
        block = nn.remat(block, policy=REMAT_POLICIES[remat], prevent_cse=False)
    return nn.scan(
        block,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=(nn.broadcast,) * broadcast,
        length=depth,
        metadata_params={nn.PARTITION_NAME: Axis.LAYERS},
    )


@dataclass(frozen=True)
class Stack:
    """How a stack of equal blocks runs.

    depth: blocks. dtype: kernels are cast to it before the scan, all blocks together: a cast inside would run in every
    pass. grad_dtype: "float32" or "bfloat16", in what the kernels' gradients leave the scan. remat: one of
    REMAT_POLICIES, for the first `remat_count` blocks (None: all); the others keep every activation. part: (first, end)
    of the blocks that run, without rematerialisation; None: all.
    """

    depth: int
    dtype: DTypeLike
    grad_dtype: str = "float32"
    remat: str = "none"
    remat_count: int | None = None
    part: tuple[int, int] | None = None


def run(
    parent: nn.Module, block: type[nn.Module], fields: tuple, name: str, how: Stack, carry: Any, invariants: tuple
) -> Any:
    """The last carry of a stack of blocks; call it inside `parent`'s compact method.

    block: `block(*fields)(carry, *invariants) -> (carry, None)`. name: their parameters lie in `parent` under it, with
    a leading axis named `layers`. how: their number, dtypes and rematerialisation.

    `flax.linen.scan` makes the parameters, with their names, but does not run them: it has no place for a cast of all
    weights before the loop, for gradients in another dtype than the weights, or for remat of a part of the blocks. So
    the loop is a plain `jax.lax.scan` over the stacked parameters, and each turn of it is an `apply` of one block.
    """
    check_remat(how.remat)
    if parent.is_initializing():
        return stack(block, how.depth, broadcast=len(invariants))(*fields, name=name)(carry, *invariants)[0]

    def one(carry, variables):
        variables = _from_bits(variables)
        carry = jax.tree.map(lambda x: checkpoint_name(x, BLOCK_INPUT), carry)
        return block(*fields, parent=None).apply(variables, carry, *invariants)

    variables = _as_bits(_cast(parent.get_variable("params", name), jnp.dtype(how.dtype), how.grad_dtype))
    if parent.has_variable(ADAPTERS, name):
        variables[ADAPTERS] = parent.get_variable(ADAPTERS, name)
    if how.part is not None:
        return _part(one, carry, variables, how.part)
    count = how.depth if how.remat_count is None else min(how.remat_count, how.depth)
    if how.remat == "none" or count == 0:
        return jax.lax.scan(one, carry, variables)[0]
    # Inside scan, common-subexpression elimination cannot undo the recomputation, so its guard only costs time.
    again = jax.checkpoint(one, policy=REMAT_POLICIES[how.remat], prevent_cse=False)
    if count == how.depth:
        return jax.lax.scan(again, carry, variables)[0]
    first, rest = _split(variables, count)
    return jax.lax.scan(one, jax.lax.scan(again, carry, first)[0], rest)[0]


def _part(one: Callable, carry: Any, variables: Tree, part: tuple[int, int]) -> Any:
    """The last carry of blocks part[0] up to part[1]. They are picked where they lie: a slice would copy them all."""

    def at(carry, i):
        return one(carry, jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), variables))

    return jax.lax.scan(at, carry, jnp.arange(*part))[0]


def _cast(params: Tree, dtype: Any, grad_dtype: str) -> dict[str, Any]:
    """Variables of the blocks, kernels in `dtype`. Where gradients shall be wider than that, `master` takes them.

    The gradient of a bfloat16 kernel is bfloat16 by JAX's rules, and rounding it costs what float32 sums had won. So
    the blocks are given the float32 kernels as well, as the collection `master`: `ops/layers.py` multiplies by the
    bfloat16 ones, reads nothing of the others, and sends the gradient to them (`contract`).
    Quantised kernels (models/int8.py) stay as they are, and so do biases and norms, which cost nothing to cast.
    """

    def kernel(path, x):
        return path[-1].key == "kernel" and isinstance(x, jax.Array) and x.dtype != dtype

    with_master = grad_dtype == "float32" and dtype != jnp.float32

    def cast(path, x):
        if not kernel(path, x):
            return x
        return jax.lax.stop_gradient(x).astype(dtype) if with_master else x.astype(dtype)

    used = jax.tree.map_with_path(cast, params, is_leaf=_is_leaf)
    if not with_master:
        return {"params": used}
    master = {path[:-1]: x for path, x in flatten_dict(params).items() if path[-1] == "kernel"}
    master = unflatten_dict({(*path, "kernel"): x for path, x in master.items() if isinstance(x, jax.Array)})
    return {"params": used, MASTER: master}


def _as_bits(variables: NamedTree) -> dict[str, Any]:
    """On a CPU, bfloat16 kernels whose gradients go to `master`, as the integers that have their bits.

    XLA has a CPU convert whatever a loop reads in bfloat16 to float32 before the loop, all blocks at once, which takes
    more time and memory than the loop's own reading. It leaves integers alone, and `_from_bits`, inside the loop, costs
    nothing.
    """
    if platform() != "cpu" or MASTER not in variables:
        return variables

    def bits(path, x):
        return _bits(x, BITS) if path[-1].key == "kernel" and _dtype(x) == jnp.bfloat16 else x

    return {**variables, "params": jax.tree.map_with_path(bits, variables["params"], is_leaf=_is_leaf)}


def _from_bits(variables: NamedTree) -> dict[str, Any]:
    """The inverse of `_as_bits`, of one block."""
    params = jax.tree.map(lambda x: _bits(x, jnp.bfloat16) if _dtype(x) == BITS else x, variables["params"])
    return {**variables, "params": params}


def _bits(x, dtype):
    return jax.lax.bitcast_convert_type(jax.lax.stop_gradient(x), dtype)


def _dtype(x):
    return x.dtype if isinstance(x, jax.Array) else None  # a quantised kernel has none


def _is_leaf(x):
    return not isinstance(x, dict)


def _split(params: Tree, count: int) -> tuple[Any, Any]:
    """The first `count` blocks and the others. One split, whose gradient is one concatenation."""
    leaves, tree = jax.tree.flatten(params)
    parts = [jax.lax.split(x, (count, x.shape[0] - count)) for x in leaves]
    return tuple(tree.unflatten([part[i] for part in parts]) for i in range(2))
