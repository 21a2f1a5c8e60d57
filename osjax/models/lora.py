"""Low-rank adapters: beside a frozen kernel W a product a b of small ones, so that x (W + scale a b) comes out.

They are a variable collection of their own, a tree like `params` with {a, b} in place of a layer's {kernel, bias}:
a (in..., r) and b (r, out...), stacked over blocks as kernels are. The fused kernel of q, k and v has three pairs,
a (D, 3, r) and b (3, r, h, d), because other tools adapt the three projections one by one. `ops/layers.py` adds the
product to what a layer gives; `merged` adds it to the kernels. Source: Hu et al., arXiv:2106.09685.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from flax.traverse_util import flatten_dict, unflatten_dict

from osjax.errors import UserError
from osjax.models import int8, patterns
from osjax.ops.layers import ADAPTERS
from osjax.types import Array, Axis, NamedTree, Tree

ATTENTION = ("*_blocks/*attn/qkv", "*_blocks/*proj")  # query, key, value and output projections of all blocks
Path = tuple[str, ...]


@dataclass(frozen=True)
class LoRAConfig:
    """Size and place of adapters.

    rank: of the products. alpha: they are scaled by alpha / rank. targets: patterns over the paths of dense layers,
    such as `single_blocks/mlp_in`.
    """

    rank: int = 16
    alpha: float = 16.0
    targets: tuple[str, ...] = ATTENTION

    def __post_init__(self):
        if self.rank < 1 or self.alpha <= 0 or not self.targets:
            raise UserError(
                f"lora: rank {self.rank} must be 1 or more, alpha {self.alpha} above 0, and targets name layers"
            )

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


class Adapted(struct.PyTreeNode):
    """A model's parameters and the adapters beside them; takes the place of `params`, see `variables`."""

    params: Tree
    adapters: Tree
    scale: float = struct.field(pytree_node=False, default=1.0)

    def given(self, adapters: Tree) -> "Adapted":
        """This model with these adapters."""
        return self.replace(adapters=adapters)

    def best(self) -> "Adapted":
        """What to evaluate and to sample with: the model with its adapters."""
        return self


def create(cfg: LoRAConfig, boxed: NamedTree, key: jax.Array) -> dict[str, Any]:
    """Fresh adapters, boxed with their logical names, which change nothing yet: b is zero. boxed: the model's params.

    UserError for a pattern that fits no dense layer.
    """
    return unflatten_dict({path: _pair(*entry, cfg.rank, key) for path, entry in enumerate_targets(cfg, boxed).items()})


def enumerate_targets(cfg: LoRAConfig, boxed: NamedTree) -> dict[Path, tuple[int, nn.LogicallyPartitioned]]:
    """(number, boxed kernel) of every layer that gets an adapter, by its path."""
    flat = flatten_dict(boxed, is_leaf=lambda _, x: isinstance(x, nn.LogicallyPartitioned))
    kernels = {path[:-1]: box for path, box in flat.items() if path[-1] == "kernel"}
    patterns.check("lora.targets", cfg.targets, ["/".join(path) for path in kernels])
    wanted = sorted(path for path in kernels if patterns.fits("/".join(path), cfg.targets))
    return {path: (number, kernels[path]) for number, path in enumerate(wanted)}


def _pair(number: int, kernel: nn.LogicallyPartitioned, rank: int, key: jax.Array) -> dict[str, Any]:
    names, sizes = kernel.names, kernel.value.shape
    lead = int(names[0] == Axis.LAYERS)
    first_out = lead + (2 if names[lead] == Axis.HEADS else 1)
    fused = first_out + int(names[first_out] == Axis.QKV)
    bound = 1 / math.sqrt(math.prod(sizes[lead:first_out]))
    shape_a = (*sizes[:fused], rank)
    a = jax.random.uniform(jax.random.fold_in(key, number), shape_a, jnp.float32, -bound, bound)
    shape_b = (*sizes[:lead], *sizes[first_out:fused], rank, *sizes[fused:])
    names_b = (*names[:lead], *names[first_out:fused], Axis.RANK, *names[fused:])
    return {
        "a": nn.LogicallyPartitioned(a, (*names[:fused], Axis.RANK)),
        "b": nn.LogicallyPartitioned(jnp.zeros(shape_b), names_b),
    }


def variables(params: NamedTree | Adapted) -> dict[str, Any]:
    """What `module.apply` takes, of parameters as they are or `Adapted`."""
    if not isinstance(params, Adapted):
        return {"params": params}
    flat = flatten_dict(params.adapters)
    scaled = {path: x * params.scale if path[-1] == "b" else x for path, x in flat.items()}
    return {"params": params.params, ADAPTERS: unflatten_dict(scaled)}


@jax.jit
def merged(params: NamedTree | Adapted) -> Mapping[str, Any]:
    """Parameters with their adapters added to the kernels; those that have none as they are.

    An int8 kernel that has an adapter comes out as float32.
    """
    if not isinstance(params, Adapted):
        return params
    flat = flatten_dict(params.params)
    with jax.default_matmul_precision("highest"):
        for path, pair in pairs(params.adapters).items():
            kernel = int8.dequantized(flat[*path, "kernel"])
            change = product(path, pair["a"], pair["b"]).reshape(kernel.shape) * params.scale
            flat[*path, "kernel"] = (kernel.astype(jnp.float32) + change).astype(kernel.dtype)
    return unflatten_dict(flat)


def pairs(adapters: Mapping) -> dict[Path, Mapping[str, Any]]:
    """{a, b} of every adapted layer by its path."""
    out: dict[Path, dict[str, Any]] = {}
    for path, leaf in flatten_dict(adapters).items():
        out.setdefault(path[:-1], {})[path[-1]] = leaf
    return out


def product(path: Path, a: Array, b: Array) -> Array:
    """The product a b of the layer at `path`: (blocks, in, 1 or 3, out), which reshapes to its kernel. numpy or jax."""
    stacked, fused = path[0].endswith("_blocks"), path[-1] == "qkv"
    L, q, r = a.shape[0] if stacked else 1, a.shape[-2] if fused else 1, a.shape[-1]
    a_LqIr = a.reshape(L, -1, q, r).swapaxes(1, 2)
    return (a_LqIr @ b.reshape(L, q, r, -1)).swapaxes(1, 2)
