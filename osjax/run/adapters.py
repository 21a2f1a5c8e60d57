"""LoRA from configs and paths: the adapters that a stage trains, the model beneath them, and adapters on disk."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from osjax import models
from osjax.errors import UserError
from osjax.models import lora
from osjax.parallel import sharding
from osjax.run.config import to_dataclass
from osjax.weights import load, lora_file, orbax_stream
from osjax.weights.layout import OPEN_SORA_V2, Layout
from osjax.weights.leaves import Leaves, of_params
from osjax.weights.lora import Adapters, blank

DTYPES = ("float32", "bfloat16")


def of_config(cfg: ConfigDict, model_cfg: Any) -> lora.LoRAConfig | None:
    """What a `lora` group asks for; None where its rank is 0. UserError for targets that the model does not have."""
    if not cfg.rank:
        return None
    if cfg.base_dtype not in DTYPES:
        raise UserError(f"lora.base_dtype is {cfg.base_dtype!r}: use one of {', '.join(DTYPES)}", status=2)
    found = _config(cfg)
    lora.enumerate_targets(found, models.abstract_params(model_cfg))
    return found


def _config(cfg: ConfigDict) -> lora.LoRAConfig:
    return to_dataclass(lora.LoRAConfig, {key: cfg[key] for key in ("rank", "alpha", "targets")}, "lora")


def init(cfg: lora.LoRAConfig, model_cfg: Any, key: jax.Array) -> Any:
    """Fresh adapters, boxed."""
    return lora.create(cfg, models.abstract_params(model_cfg), key)


def start(path: str | None, cfg: lora.LoRAConfig, model_cfg: Any) -> Leaves | None:
    """The adapters that training goes on with; None for fresh ones. UserError where they are of another kind."""
    if not path:
        return None
    found = read(Path(path), model_cfg)
    if found.cfg != cfg:
        raise UserError(
            f"lora.start {path} has rank {found.cfg.rank}, alpha {found.cfg.alpha:g} and targets {found.cfg.targets}: "
            "set these in the config, too",
            status=2,
        )
    return of_params(found.tree)


def base(leaves: Leaves, cfg: lora.LoRAConfig, model_cfg: Any, mesh: Mesh, dtype: str) -> tuple[lora.Adapted, Any]:
    """The model beneath the adapters, on the mesh as `dtype`, and its shardings."""
    places = sharding.of_boxed(models.abstract_params(model_cfg), mesh)
    params = load.place(leaves, places, jnp.dtype(dtype))
    return tuple(lora.Adapted(tree, None, cfg.scale) for tree in (params, places))


def checksum(params: Any) -> int:
    """A number of the bits of all arrays, the same on every mesh."""

    @jax.jit
    def total(tree):
        kinds = {4: jnp.uint32, 2: jnp.uint16}
        sums = [
            jnp.sum(jax.lax.bitcast_convert_type(x, kinds[x.dtype.itemsize]), dtype=jnp.uint32) * jnp.uint32(2 * i + 1)
            for i, x in enumerate(jax.tree.leaves(tree))
        ]
        return sum(sums)

    return int(total(params))


def is_adapter(path: Path) -> bool:
    """Does a path hold adapters rather than a model?"""
    if path.is_dir():
        found = orbax_stream.find(path)
        return (path / lora_file.PEFT_CONFIG).exists() or (found is not None and _saved(found).get("rank", 0) > 0)
    return lora_file.is_adapter(path)


def read(path: Path, model_cfg: Any, layout: Layout = OPEN_SORA_V2, average: bool = True) -> Adapters:
    """Adapters of a model in a checkpoint of a LoRA stage, in a folder of peft or in a .safetensors.

    average: their moving average, where the checkpoint has one. UserError for what does not fit the model.
    """
    found = orbax_stream.find(path, average)
    if found is None:
        return lora_file.read(path, model_cfg, layout)
    saved = _saved(found)
    if not saved.get("rank"):
        raise UserError(f"{path} holds a whole model and no adapters: give the checkpoints of a stage with lora.rank")
    cfg, leaves = _config(ConfigDict(saved)), orbax_stream.open_leaves(found)
    wanted = of_params(blank(model_cfg, cfg)).shapes
    if leaves.shapes != wanted:
        raise UserError(f"{path} holds adapters of another model: check the model config")
    return Adapters(cfg, leaves.tree())


def _saved(item: Path) -> dict[str, Any]:
    """The `lora` group of the config in the checkpoint that a folder of parameters belongs to."""
    path = item.parent / "config" / "metadata"
    try:
        found = json.loads(path.read_text())
        return dict(found.get("lora") or {})
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # converted weights have no such config
