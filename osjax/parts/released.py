"""The released files: where the shipped configs look for them, and where they are published."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from osjax.errors import Problems

FOLDER = "ckpts"  # of the shipped configs
# Repository of Hugging Face -> the files and folders that it has.
PUBLISHED = {
    "hpcai-tech/Open-Sora-v2": (
        "Open_Sora_v2.safetensors",
        "hunyuan_vae.safetensors",
        "google/t5-v1_1-xxl",
        "openai/clip-vit-large-patch14",
    ),
    "hpcai-tech/Open-Sora-v2-Video-DC-AE": ("Open_Sora_v2_Video_DC_AE.safetensors", "F32T4C128_AE.safetensors"),
    "black-forest-labs/FLUX.1-dev": ("flux1-dev.safetensors",),
}


def move(cfg: ConfigDict, folder: str) -> None:
    """Have a config look for the released files in another folder than `ckpts`, or in an `hf://` repository."""
    for group, name, value in _texts(cfg):
        if Path(value).parts[:1] == (FOLDER,):
            group[name] = f"{folder.rstrip('/')}/{Path(value).relative_to(FOLDER)}"


def _texts(cfg: ConfigDict) -> Iterator[tuple[ConfigDict, str, str]]:
    for name in cfg:
        if isinstance(cfg[name], ConfigDict):
            yield from _texts(cfg[name])
        elif isinstance(cfg[name], str):
            yield cfg, name, cfg[name]


def check(given: Mapping[str, str | None]) -> None:
    """UserError that names all files which are missing, and the commands that fetch those of them that are published.

    given: config keys with the paths that they name. Where none of the missing is published, whoever reads it says so.
    """
    absent = {key: path for key, path in given.items() if path and not Path(path).exists()}
    if commands := fetching([*absent.values()]):
        lines = [f"config key {key} is {path}, which does not exist" for key, path in absent.items()]
        raise Problems([*lines, *(f"missing files are published: {command}" for command in commands)])


def fetching(paths: Sequence[Any]) -> list[str]:
    """Commands that fetch released files, one a repository. paths: of files that are missing; others count for none."""
    commands: dict[str, None] = {}
    for path in map(str, paths):
        for repository, files in PUBLISHED.items():
            for file in files:
                if path == file or path.endswith(f"/{file}"):
                    folder = path.removesuffix(file).rstrip("/") or "."
                    commands[f"hf download {repository} --local-dir {folder}"] = None
    return list(commands)
