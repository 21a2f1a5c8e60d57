"""Low-rank adapters from config keys: what a stage trains, and the model beneath."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from osjax import models
from osjax.errors import UserError
from osjax.models import int8, lora
from osjax.models.mmdit.config import MMDiTConfig
from osjax.models.velocity import VideoConfig
from osjax.parallel import sharding
from osjax.parts.groups import refuse
from osjax.types import NamedTree, Tree
from osjax.weights import adapters, quantized
from osjax.weights.leaves import Leaves, of_params

BASE_DTYPES = ("float32", "bfloat16", "int8")


@dataclass(frozen=True)
class LoRAKeys:
    """The `lora` group: low-rank adapters instead of the model, which `start` gives and which stays as it is."""

    rank: int = 0  # 0: train the model
    alpha: float = 16.0  # adapters are scaled by alpha / rank
    # Patterns over the paths of dense layers: here the projections of attention; "*_blocks/*mlp*" is the feed-forward.
    targets: tuple[str, ...] = lora.ATTENTION
    start: str | None = None  # adapters to go on with: .safetensors, a folder of peft or checkpoints; none: fresh
    base_dtype: str = "float32"  # of the model beneath; bfloat16 halves its memory, int8 quarters it


def of_keys(keys: LoRAKeys, model_cfg: VideoConfig, key: str = "lora") -> lora.LoRAConfig | None:
    """The adapters that a group asks for; None where its rank is 0.

    keys: of the group. model_cfg: of the model to adapt. UserError for targets that it does not have.
    """
    if keys.base_dtype not in BASE_DTYPES:
        raise UserError(f"{key}.base_dtype is {keys.base_dtype!r}: use one of {', '.join(BASE_DTYPES)}", status=2)
    if not keys.rank:
        refuse(keys, key, ("rank",), f"{key}.rank is 0")
        return None
    if keys.base_dtype == "int8":
        int8.library()
    cfg = lora.LoRAConfig(keys.rank, keys.alpha, tuple(keys.targets))
    lora.enumerate_targets(cfg, models.abstract_params(model_cfg))
    return cfg


def init(cfg: lora.LoRAConfig, model_cfg: VideoConfig, key: jax.Array) -> dict[str, Any]:
    """Fresh adapters of a model, boxed with their logical axis names. model_cfg: of the model; key: draws them."""
    return lora.create(cfg, models.abstract_params(model_cfg), key)


def start(path: str | None, cfg: lora.LoRAConfig, model_cfg: MMDiTConfig) -> Leaves | None:
    """The adapters that training goes on with; None for fresh ones.

    path: of `lora.start`. cfg, model_cfg: what is trained. UserError where the adapters are of another kind.
    """
    if not path:
        return None
    given = adapters.read(Path(path), model_cfg).plain(Path(path))
    if given.cfg != cfg:
        raise UserError(
            f"lora.start {path} has rank {given.cfg.rank}, alpha {given.cfg.alpha:g} and targets {given.cfg.targets}: "
            "set these in the config, too",
            status=2,
        )
    return of_params(given.tree)


def base(
    leaves: Leaves, cfg: lora.LoRAConfig, model_cfg: VideoConfig, mesh: Mesh, dtype: str
) -> tuple[lora.Adapted, lora.Adapted]:
    """The model beneath the adapters, on the mesh as `dtype`, and its shardings.

    leaves: its parameters on disk. cfg: of the adapters. model_cfg: of the model. dtype: of its parameters, by name.
    """
    boxed = abstract_base(model_cfg, dtype)
    places = sharding.of_boxed(boxed, mesh)
    params = quantized.place(leaves, boxed, places)
    return tuple(lora.Adapted(tree, None, cfg.scale) for tree in (params, places))


def abstract_base(model_cfg: VideoConfig, dtype: str) -> NamedTree:
    """Boxed shapes of a model beneath adapters; allocates nothing.

    model_cfg: of the model. dtype: of its parameters, by name; beside int8 kernels of the blocks the rest is bfloat16.
    """
    rest = jnp.dtype("bfloat16" if dtype == "int8" else dtype)
    boxed = models.abstract_params(model_cfg)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, rest), nn.unbox(boxed))
    if dtype == "int8":
        return int8.abstract_params(boxed, shapes)
    return jax.tree.map(lambda box, x: box.replace_boxed(x), boxed, shapes, is_leaf=int8.is_box)


def checksum(params: Tree) -> int:
    """A number made of the bits of all arrays of a tree, the same on every mesh."""

    @jax.jit
    def total(tree):
        kinds = {4: jnp.uint32, 2: jnp.uint16, 1: jnp.uint8}
        sums = [
            jnp.sum(jax.lax.bitcast_convert_type(x, kinds[x.dtype.itemsize]), dtype=jnp.uint32) * jnp.uint32(2 * i + 1)
            for i, x in enumerate(jax.tree.leaves(tree))
        ]
        return sum(sums)

    return int(total(params))
