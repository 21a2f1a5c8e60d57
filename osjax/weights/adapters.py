"""Adapters (LoRA) of a model on disk: in a checkpoint of a stage that trained them, a peft folder or a .safetensors."""

import math
from pathlib import Path

from osjax.errors import UserError
from osjax.models.lora import LoRAConfig
from osjax.models.mmdit.config import MMDiTConfig
from osjax.types import Json
from osjax.weights import lora_file, orbax_stream
from osjax.weights.layout import OPEN_SORA_V2, Layout
from osjax.weights.leaves import of_params
from osjax.weights.lora import Adapters, blank


def is_adapter(path: Path) -> bool:
    """Whether a path holds adapters rather than a model."""
    if path.is_dir():
        checkpoint = orbax_stream.find(path)
        trained = checkpoint is not None and _saved(checkpoint).get("rank", 0) > 0
        return trained or (checkpoint is None and lora_file.is_adapter(path))
    return lora_file.is_adapter(path)


def read(path: Path, model_cfg: MMDiTConfig, layout: Layout = OPEN_SORA_V2, average: bool = True) -> Adapters:
    """Adapters of a model in a checkpoint of a LoRA stage, in a folder of peft or in a .safetensors.

    path: of any of these. model_cfg: of the model they are of. layout: of attention weights in files. average: take
    their moving average, where the checkpoint has one. UserError for what does not fit the model.
    """
    checkpoint = orbax_stream.find(path, average)
    if checkpoint is None:
        return lora_file.read(path, model_cfg, layout)
    saved = _saved(checkpoint)
    if not saved.get("rank"):
        raise UserError(f"{path} holds a whole model and no adapters: give the checkpoints of a stage with lora.rank")
    try:
        cfg = LoRAConfig(int(saved["rank"]), float(saved["alpha"]), tuple(map(str, saved["targets"])))
        if not math.isfinite(cfg.alpha):
            raise ValueError(f"alpha is {cfg.alpha}")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{path} does not say which adapters it holds ({error}): its config is damaged") from error
    leaves = orbax_stream.open_leaves(checkpoint)
    wanted = of_params(blank(model_cfg, cfg)).shapes
    if leaves.shapes != wanted:
        raise UserError(f"{path} holds adapters of another model: check the model config")
    return Adapters(cfg, leaves.tree())


def _saved(item: Path) -> Json:
    """The `lora` group of the config in the checkpoint that a folder of parameters belongs to."""
    try:
        return dict(orbax_stream.saved_config(item).get("lora") or {})  # converted weights have none
    except (ValueError, TypeError):
        return {}
