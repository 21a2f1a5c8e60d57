"""Text encoders from the user's local folders in the Hugging Face layout: config.json, tokenizer and weights."""

import dataclasses
import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from osjax import models
from osjax.data import tokenize
from osjax.errors import UserError
from osjax.run import stored
from osjax.sampling.encoders import T5AndCLIP, TextModel
from osjax.weights.load import open_leaves

ENDS = 2**20  # bytes of a file that go into fingerprints, at either end
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def load(
    t5_folder: str, clip_folder: str, dtype: str = "bfloat16", offload: bool = False, mesh: Mesh | None = None
) -> T5AndCLIP:
    """T5 and CLIP, their weights to be read on first use. UserError for a folder that lacks something.

    mesh: of this host's devices, to split both models and the prompts over.
    """
    return T5AndCLIP(
        _text_model("t5", Path(t5_folder), tokenize.t5, dtype),
        _text_model("clip_text", Path(clip_folder), tokenize.clip, dtype),
        offload,
        mesh,
    )


def fingerprint(t5_folder: str, clip_folder: str) -> str:
    """Of both folders: their configs, and sizes, beginnings and ends of the weight files; 16 hex digits."""
    sums = hashlib.sha256()
    for folder in map(Path, (t5_folder, clip_folder)):
        for path in sorted(p for p in folder.iterdir() if p.suffix in (".json", ".safetensors", ".bin", ".model")):
            with path.open("rb") as file:
                sums.update(f"{path.name} {path.stat().st_size}".encode() + file.read(ENDS))
                file.seek(max(0, path.stat().st_size - ENDS))
                sums.update(file.read(ENDS))
    return sums.hexdigest()[:16]


def _text_model(family: str, folder: Path, tokenizer, dtype: str) -> TextModel:
    cfg = config(family, folder, dtype)
    files = [folder / name for name in WEIGHT_FILES if (folder / name).is_file()]
    if not files:
        raise UserError(f"{folder} holds no weights: one of {', '.join(WEIGHT_FILES)}")
    opened = stored.of_leaves(cfg, partial(open_leaves, cfg, files[0]), dtype)
    return TextModel(tokenizer(folder), models.build(cfg), opened)


def config(family: str, folder: Path, dtype: str) -> Any:
    """The configuration that a folder's config.json states. UserError where it is of another kind of model."""
    path = folder / "config.json"
    try:
        stated = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): give the folder of a text encoder") from error
    kinds = {"t5": ("t5",), "clip_text": ("clip", "clip_text_model")}[family]
    if stated.get("model_type") not in kinds:
        raise UserError(f"{path} is of model_type {stated.get('model_type')!r}: give a folder of type {kinds[0]}")
    stated = stated.get("text_config", stated)
    fields = {f.name for f in dataclasses.fields(models.config_class(family))} - {"dtype"}
    return models.config(family, **{k: v for k, v in stated.items() if k in fields}, dtype=dtype)
