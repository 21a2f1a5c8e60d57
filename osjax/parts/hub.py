"""Weights at Hugging Face: `hf://OWNER/NAME`, `hf://OWNER/NAME/FILE_OR_FOLDER`, either with `@REVISION` at its end.

They are fetched to the cache of `huggingface_hub`, an extra, which goes on where a download broke off. What a branch
was at the first time is kept as a pin, so that a run goes on with the same files.
"""

import importlib
import os
import re
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from ml_collections import ConfigDict

from osjax.errors import UserError

PREFIX = "hf://"
PATH = re.compile(r"hf://(?P<repository>[\w.-]+/[\w.-]+)(?:/(?P<inside>[^@]+?))?/?(?:@(?P<revision>[\w./-]+))?")
READ = ("*.safetensors", "*.json", "*.model", "*.bin", "*.pt", "*.pth", "*.txt")  # of a whole repository or folder
KEYS = frozenset(("weights", "t5", "clip", "adapter", "adapters", "start"))  # that take such paths, by their last name


def is_hub(path: object) -> bool:
    """Whether a path names a repository of Hugging Face."""
    return isinstance(path, str) and path.startswith(PREFIX)


def local(path: str, pins: MutableMapping[str, str]) -> str:
    """The path on this machine of what an `hf://` path names, fetched where it is not there yet.

    pins: revisions, as commits, of the branches that were asked for; a new one is added. UserError for a path that is
    none, for what is not there, and without the network where nothing is in the cache.
    """
    match = PATH.fullmatch(path)
    if match is None or ".." in path.split("/"):
        raise UserError(f"{path} is no hf://OWNER/NAME, hf://OWNER/NAME/FILE or either with @REVISION", status=2)
    repository, inside, branch = match["repository"], match["inside"], match["revision"] or "main"
    hub = library()
    patterns = [inside, *(f"{inside}/{kind}" for kind in READ)] if inside else list(READ)
    endpoint = os.environ.get("HF_ENDPOINT")
    try:
        name = f"{repository}@{branch}"
        if name not in pins:
            pins[name] = str(hub.HfApi(endpoint=endpoint).model_info(repository, revision=branch).sha)
        folder = hub.snapshot_download(repository, revision=pins[name], allow_patterns=patterns, endpoint=endpoint)
    except Exception as error:  # of the library, of its HTTP client, of the disk: their kinds differ by version
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise UserError(f"{path} cannot be fetched ({reason}): check its name, or `hf auth login`", status=2) from error
    where = os.path.join(folder, inside) if inside else folder
    if not os.path.exists(where):
        raise UserError(f"{path}: {repository} has no {inside} at {branch}", status=2)
    return where


def resolved(cfg: ConfigDict, pins: MutableMapping[str, str]) -> ConfigDict:
    """A config with the paths on this machine for its `hf://` ones; itself where it has none. pins: as in `local`."""
    if not any(is_hub(value) for key, value in _strings(cfg) if key in KEYS):
        return cfg
    changed = ConfigDict(cfg.to_dict())
    _resolve(changed, pins)
    return changed


def _resolve(group: ConfigDict, pins: MutableMapping[str, str]) -> None:
    for key in list(group):
        value = group[key]
        if isinstance(value, ConfigDict):
            _resolve(value, pins)
        elif key in KEYS and is_hub(value):
            group[key] = local(value, pins)
        elif key in KEYS and isinstance(value, tuple | list):
            rows = (list(row) if isinstance(row, tuple | list) else [row] for row in value)
            group[key] = tuple(tuple(local(x, pins) if is_hub(x) else x for x in row) for row in rows)


def _strings(cfg: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(cfg, str):
        yield key, cfg
    elif isinstance(cfg, tuple | list):
        for value in cfg:
            yield from _strings(value, key)
    elif isinstance(cfg, Mapping | ConfigDict):
        for name, value in cfg.items():
            yield from _strings(value, name)


def library() -> Any:
    """The package huggingface_hub. UserError, status 2, where it is not installed."""
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise UserError("hf:// paths need huggingface_hub: pip install 'osjax[hub]'", status=2) from error
