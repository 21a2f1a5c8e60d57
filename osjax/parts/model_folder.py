"""The user's local folders of pretrained models in the Hugging Face layout: config.json and weights."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from osjax import json_file, models
from osjax.errors import UserError

ENDS = 2**20  # bytes of a file that go into fingerprints, at either end
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
READ = (".json", ".safetensors", ".bin", ".model")  # suffixes of files that a model depends on
# family -> (model types of config.json, the part of it that describes the family where it describes several)
KINDS = {
    "t5": (("t5",), None),
    "clip_text": (("clip", "clip_text_model"), "text_config"),
    "clip_vision": (("clip", "clip_vision_model"), "vision_config"),
}


def config(family: str, folder: Path, dtype: str) -> Any:
    """The configuration that a folder's config.json states, computing in `dtype`.

    family: a key of KINDS. UserError where there is no config.json, or one of another kind of model.
    """
    path = folder / "config.json"
    stated = json_file.read(path, "give the folder of such a model")
    kinds, part = KINDS[family]
    if stated.get("model_type") not in kinds:
        raise UserError(f"{path} is of model_type {stated.get('model_type')!r}: give a folder of type {kinds[0]}")
    whole = {k: v for k, v in stated.items() if k == "projection_dim"}  # of both towers of CLIP
    inner = stated.get(part, stated) if part else stated
    if not isinstance(inner, dict):
        raise UserError(f"{path}: {part} is no group of settings: fetch it again")
    stated = {**inner, **whole}
    fields = {f.name for f in dataclasses.fields(models.config_class(family))} - {"dtype"}
    return models.config(family, **{k: v for k, v in stated.items() if k in fields}, dtype=dtype)


def weight_file(folder: Path) -> Path:
    """The file that a folder's weights are read from. UserError where there is none."""
    files = [folder / name for name in WEIGHT_FILES if (folder / name).is_file()]
    if not files:
        raise UserError(f"{folder} holds no weights: one of {', '.join(WEIGHT_FILES)}")
    return files[0]


def fingerprint(*paths: str) -> str:
    """What tells models of other files from these: 16 hex digits over names, sizes, beginnings and ends of files.

    paths: files, or folders, of which the files count that a model depends on (READ).
    """
    sums = hashlib.sha256()
    for given in map(Path, paths):
        for path in sorted(p for p in given.iterdir() if p.suffix in READ) if given.is_dir() else [given]:
            with path.open("rb") as file:
                sums.update(f"{path.name} {path.stat().st_size}".encode() + file.read(ENDS))
                file.seek(max(0, path.stat().st_size - ENDS))
                sums.update(file.read(ENDS))
    return sums.hexdigest()[:16]
