"""Where a trained model comes from, in words that others may read: no path of this machine, no name of its owner."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from osjax.parts import released
from osjax.types import Json

# How `huggingface_hub` keeps what it fetched.
CACHED = re.compile(r".*/models--(?P<owner>[\w.-]+?)--(?P<name>[\w.-]+)/snapshots/(?P<commit>\w+)(?:/(?P<inside>.+))?")
LOCAL = re.compile(r"[/~\\]|[A-Za-z]:[/\\]|[A-Za-z][A-Za-z0-9+.-]*://")


def public(path: str) -> str:
    """What a path is called elsewhere: `hf://OWNER/NAME/FILE@COMMIT` of what was fetched, else its last part.

    path: as a config has it, or a text that is none: that stays as it is, and so do relative paths.
    """
    if match := CACHED.fullmatch(path):
        inside = f"/{match['inside']}" if match["inside"] else ""
        return f"hf://{match['owner']}/{match['name']}{inside}@{match['commit']}"
    if path.startswith("hf://") or not (LOCAL.match(path) or ".." in Path(path).parts):
        return path
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def without_paths(value: Any) -> Any:
    """A JSON value, of whose texts `public` was taken."""
    if isinstance(value, str):
        return public(value)
    if isinstance(value, Mapping):
        return {name: without_paths(one) for name, one in value.items()}
    return [without_paths(one) for one in value] if isinstance(value, list | tuple) else value


def published_at(path: str) -> str | None:
    """The repository of Hugging Face OWNER/NAME that a weight file was fetched from, None of others.

    path: of the file, on this machine or `public`.
    """
    name = public(path)
    return "/".join(name.removeprefix("hf://").split("@")[0].split("/")[:2]) if name.startswith("hf://") else None


def of_stage(saved: Mapping[str, Any], data: str = "", clips: int = 0) -> Json:
    """Where a stage's model comes from: texts by what they are.

    saved: the stage's keys, as its checkpoints hold them, with the checksum of a model beneath adapters. data, clips:
    identity of its data set, and how many clips that has.
    """
    start, lora = saved.get("start") or {}, saved.get("lora") or {}
    told: Json = {}
    if start.get("stage"):
        told["base"] = f"stage {start['stage']} of the same run"
    elif start.get("weights"):
        told["base"] = public(start["weights"])
        alike = [name for name, files in released.PUBLISHED.items() if told["base"].rsplit("/")[-1] in files]
        if alike and not published_at(start["weights"]):
            told["base"] += f", a local file, named as one of {alike[0]}"
    if saved.get("base_checksum") is not None:
        told["base_checksum"] = str(saved["base_checksum"])
    decoder = saved.get("autoencoder") or {}
    if decoder.get("stage"):
        told["autoencoder"] = f"stage {decoder['stage']} of the same run, not beside these weights"
    given = {"adapters_before": lora.get("start"), "autoencoder": decoder.get("weights")}
    given |= {name: (saved.get("text") or {}).get(name) for name in ("t5", "clip")}
    told |= {name: public(path) for name, path in given.items() if path}
    if data:
        told["data_set"] = data
    if clips:
        told["clips"] = clips
    return told
