"""Conversion of weights: files with the original's names to osjax checkpoints and back, adapters likewise.

Streams: at any time one tensor, or one block of a stacked leaf, is in memory.
"""

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath

from osjax import integrity, weights
from osjax.errors import UserError
from osjax.models.lora import LoRAConfig
from osjax.models.mmdit.config import MMDiTConfig
from osjax.types import ModelConfig
from osjax.weights import adapters, init, lora_file, orbax_stream
from osjax.weights.io import save_tensors
from osjax.weights.layout import Layout
from osjax.weights.leaves import Leaves, to_tensors
from osjax.weights.load import open_leaves
from osjax.weights.lora_merge import merged

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Written:
    """What a conversion wrote: number of files, and bytes in all."""

    files: int
    bytes: int


def open_source(
    source: Path,
    model_cfg: ModelConfig,
    layout: Layout,
    *,
    start_from: tuple[Any, Layout] | None = None,
    seed: int = 0,
    adapter: Path | None = None,
) -> Leaves:
    """The parameters of a model in files or a checkpoint; nothing is read yet.

    model_cfg: of the model. layout: of files with the original's names. start_from: config and layout of another model,
    which the source holds and this one starts from. seed: of layers that this makes anew. adapter: LoRA to add.
    UserError for what does not fit.
    """
    if start_from:
        other, other_layout = start_from
        leaves = init.from_model(model_cfg, open_leaves(other, source, layout=other_layout), seed)
    else:
        leaves = open_leaves(model_cfg, source, layout=layout)
    if checkpoint := orbax_stream.find(source):
        if not integrity.check(epath.Path(checkpoint), sums=True):
            log.warning("checkpoint %s has no seal beside it: it is not verified", checkpoint.parent)
    return merged(leaves, adapters.read(adapter, model_cfg, layout)) if adapter else leaves


def numpy_dtype(name: str | None) -> np.dtype | None:
    """The dtype of a name such as bfloat16; None keeps every tensor's own."""
    return None if name is None else jnp.dtype(name)


def other_form(source: Path) -> str:
    """What a source becomes where nothing else is asked for: safetensors from a checkpoint, orbax from files."""
    return "safetensors" if orbax_stream.find(source) else "orbax"


def write(
    leaves: Leaves,
    out: Path,
    to: str,
    model_cfg: ModelConfig,
    layout: Layout,
    shard_bytes: int,
    says: Mapping[str, Any],
) -> Written:
    """Write parameters, whole or not at all; a failed write leaves nothing behind.

    leaves: the parameters, read as they are written. out: a folder, or a .safetensors to have all in one file. to:
    orbax or safetensors. model_cfg: of the model. layout: of attention weights in files. shard_bytes: the largest file
    of a folder. says: what a checkpoint keeps as its config, JSON values. UserError for a checkpoint in a .safetensors.
    """
    if to == "orbax" and out.suffix == ".safetensors":
        raise UserError(f"{out} cannot be a checkpoint: name a folder, or ask for --to=safetensors", status=2)
    try:
        if to == "orbax":
            orbax_stream.save(out, leaves, dict(says))
            return Written(1, size_of(out))
        tensors, fetch = to_tensors(weights.table(model_cfg, layout), leaves)
        files = save_tensors(out, tensors, fetch, shard_bytes)
        return Written(len(files), size_of(out))
    except BaseException:
        _remove(out)
        raise


def adapter(
    source: Path, out: Path, model_cfg: MMDiTConfig, layout: Layout, form: str | None = None
) -> tuple[LoRAConfig, int]:
    """Convert adapters of a model: a checkpoint, or files of another tool, to files in one of three forms.

    Returns what they are, and the bytes written. source: a checkpoint, a folder or a .safetensors. out: a folder or a
    .safetensors. model_cfg: of the model they are of. layout: of attention weights in files. form: as `lora_file.write`
    takes it. UserError for what does not fit the model.
    """
    form = lora_file.form_of(out, form)
    lora = adapters.read(source, model_cfg, layout).plain(source)
    lora_file.write(out, model_cfg, lora, layout, form)
    return lora.cfg, size_of(out)


def size_of(out: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(p.stat().st_size for p in ([out] if out.is_file() else out.rglob("*")) if p.is_file())


def _remove(out: Path) -> None:
    """Remove what a failed conversion leaves; OUT was not there before, or empty."""
    if out.is_dir():
        shutil.rmtree(integrity.seal_of(epath.Path(out) / "0").parent, ignore_errors=True)
        shutil.rmtree(out)
