"""Weight files of users: `open_tensors` finds and opens them, `save_tensors` writes them, both one piece at a time."""

import json
import re
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path

import numpy as np

from osjax import atomic, file_name, json_file
from osjax.errors import UserError
from osjax.weights import safetensors_file, torch_file
from osjax.weights.tensor_file import FileTensor

INDEX = "model.safetensors.index.json"
SHARD_BYTES = 5 * 10**9  # largest part of a folder of weights
INDEX_NAME = r"({})\.index(\.\w+)?\.json"  # diffusers puts a variant's name before .json
# Beginning of a file in lower case -> what it is and what to do.
ORIGINAL = "fetch the model as .safetensors in bfloat16, float16 or float32"
FOREIGN = (
    (b"gguf", "a GGUF file (quantised weights for llama.cpp and ComfyUI-GGUF)", ORIGINAL),
    (b"ggml", "a GGML file (quantised weights for llama.cpp)", ORIGINAL),
    (b"tjgg", "a GGML file (quantised weights for llama.cpp)", ORIGINAL),
    (b"\x89hdf", "an HDF5 file (weights of Keras or TensorFlow)", ORIGINAL),
    (b"\x93numpy", "a single numpy array", ORIGINAL),
)
TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")


def open_tensors(path: Path | str) -> dict[str, FileTensor]:
    """The tensors by name of a .safetensors, a PyTorch .pt, .pth or .bin, an index of either, or a folder with one.

    path: that file or folder. Headers are read, tensors are not: each has `.shape` and `.dtype`, and is read where it
    is sliced.
    Raises UserError for what is missing, damaged, ambiguous or (a PyTorch file) asks for anything but tensors.
    """
    path = Path(path)
    try:
        if path.is_dir():
            path = _in_folder(path)
        if not path.is_file():
            raise UserError(f"{path} does not exist: give a .safetensors, a PyTorch checkpoint or a folder with one")
        return _from_index(path) if path.suffix == ".json" else _open_file(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


def _open_file(path: Path) -> dict[str, FileTensor]:
    """The tensors of a file, read as its content asks and not as its name does."""
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(b"version https://"):
        raise UserError(f"{path} is only a Git LFS pointer to the weights: run `git lfs pull` where it lies")
    for magic, what, mend in FOREIGN:
        if start.lower().startswith(magic):
            raise UserError(f"{path} is {what}, which osjax does not read: {mend}")
    is_safetensors = start[8:9] == b"{"  # the eight bytes before are a length, and may look like anything
    if not is_safetensors and (start.startswith((b"PK", b"\x80")) or path.suffix in TORCH_SUFFIXES):
        return torch_file.read(path)
    return safetensors_file.read(path)


def _in_folder(folder: Path) -> Path:
    """The index or the only weight file of a folder, safetensors before PyTorch's."""
    for suffixes in ((".safetensors",), TORCH_SUFFIXES):
        index = re.compile(".*" + INDEX_NAME.format("|".join(map(re.escape, suffixes))))
        for fits in (index.fullmatch, lambda name, suffixes=suffixes: name.endswith(suffixes)):
            files = sorted(p for p in folder.iterdir() if fits(p.name))
            if len(files) == 1:
                return files[0]
            if files:
                names = ", ".join(p.name for p in files[:4])
                raise UserError(f"{folder} holds {len(files)} weight files ({names}): name one of them, or an index")
    if foreign := sorted(folder.glob("*.gguf")):
        return foreign[0]  # opening it says what it is
    if (folder / "model_index.json").is_file():
        parts = ", ".join(sorted(p.name for p in folder.iterdir() if p.is_dir())[:8])
        raise UserError(f"{folder} is a pipeline of diffusers with several models: give one of its folders ({parts})")
    raise UserError(f"{folder} holds no .safetensors, .bin, .pt or .pth: give the folder or the file of the weights")


def _from_index(path: Path) -> dict[str, FileTensor]:
    """All tensors of the files that an index names; they lie beside it."""
    try:
        places = json_file.read(path, "it is no index of weight files, fetch it again", ("weight_map",))["weight_map"]
        if not all(isinstance(part, str) for pair in places.items() for part in pair):
            raise ValueError("names are text")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no index of weight files ({error}): fetch it again") from error
    tensors: dict[str, FileTensor] = {}
    for name in sorted(set(places.values())):
        if not file_name.is_plain(name):
            raise UserError(f"{path} names {name[:60]!r}, which does not lie beside it: fetch the index again")
        if not (path.parent / name).is_file():
            raise UserError(f"{path.parent / name} is missing, though {path.name} names it: fetch it, too")
        shard = _open_file(path.parent / name)
        twice = shard.keys() & tensors.keys()
        if twice:
            raise UserError(f"{path}: {min(twice)} is in two of its files; fetch them again")
        tensors |= shard
    lost = [name for name in places if name not in tensors]
    if lost:
        raise UserError(f"{path} names {lost[0]}, which is not in {places[lost[0]]}: fetch that file again")
    return tensors


def save_tensors(
    out: Path,
    tensors: Mapping[str, tuple[tuple[int, ...], np.dtype]],
    fetch: Callable[[str], np.ndarray],
    shard_bytes: int = SHARD_BYTES,
) -> list[Path]:
    """Write {name: (shape, dtype)} with values from `fetch(name)`, holding one tensor at a time.

    out: a .safetensors for one file; else a folder, with an index where the tensors take more than one file of
    `shard_bytes`. Returns the files with tensors. UserError where the disk does not take them.
    """
    try:
        if out.suffix == ".safetensors":
            out.parent.mkdir(parents=True, exist_ok=True)
            safetensors_file.write(out, tensors, fetch)
            return [out]
        out.mkdir(parents=True, exist_ok=True)
        return _save_shards(out, _split(tensors, shard_bytes), fetch)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror or error}") from error


def _save_shards(folder: Path, shards: list[dict], fetch: Callable[[str], np.ndarray]) -> list[Path]:
    paths = [folder / f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    if len(shards) == 1:
        paths = [folder / "model.safetensors"]
    for path, shard in zip(paths, shards, strict=True):
        safetensors_file.write(path, shard, fetch)
    if len(shards) > 1:
        places = {name: path.name for path, shard in zip(paths, shards, strict=True) for name in shard}
        total = sum(_size(*entry) for shard in shards for entry in shard.values())
        content = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
        atomic.write_text(folder / INDEX, json.dumps(content, indent=2) + "\n")
    return paths


def _split(tensors: Mapping, shard_bytes: int) -> list[dict]:
    """In the order given, as many to a file as fit; a tensor larger than that has a file of its own."""
    shards: list[dict] = [{}]
    filled = 0
    for name, entry in tensors.items():
        size = _size(*entry)
        if shards[-1] and filled + size > shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = entry
        filled += size
    return shards


def _size(shape: tuple[int, ...], dtype: np.dtype) -> int:
    return prod(shape) * dtype.itemsize
