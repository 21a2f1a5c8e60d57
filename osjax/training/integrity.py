"""Seals: sizes and checksums of a checkpoint's files, so that a damaged one is known before it is trusted.

A seal is a small JSON file beside the checkpoint, written once the checkpoint is complete. Array formats notice a
missing file but not always a flipped bit; a seal notices both.
"""

import json
import zlib
from typing import Any

from etils import epath

CHUNK = 2**22  # bytes read at once


def write_seal(checkpoint: epath.Path, seal: epath.Path) -> None:
    """Seal every file below `checkpoint` in the file `seal`. FileNotFoundError if one is being deleted meanwhile."""
    files = {name: [path.stat().length, checksum(path)] for name, path in _files(checkpoint).items()}
    seal.parent.mkdir(parents=True, exist_ok=True)
    partial = seal.with_suffix(".partial")
    partial.write_text(json.dumps(files))
    partial.replace(seal)


def damage(checkpoint: epath.Path, seal: epath.Path) -> str | None:
    """What is wrong with a checkpoint in a few words; None if it is as its `seal` has it, or was never sealed."""
    if not seal.exists():
        return None
    sealed: dict[str, Any] = json.loads(seal.read_text())
    files = _files(checkpoint)
    missing = sorted(sealed.keys() - files.keys())
    if missing:
        return f"file {missing[0]} is missing"
    for name, (size, expected) in sealed.items():
        length = files[name].stat().length
        if length != size:
            return f"file {name} has {length} of {size} bytes"
        if checksum(files[name]) != expected:
            return f"file {name} has changed"
    return None


def checksum(path: epath.Path) -> int:
    """CRC-32 of the file at `path`."""
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            value = zlib.crc32(chunk, value)
    return value


def _files(folder: epath.Path) -> dict[str, epath.Path]:
    """Files below a folder by their path inside it."""
    out, left = {}, [folder]
    while left:
        for path in left.pop().iterdir():
            if path.is_dir():
                left.append(path)
            else:
                out[str(path.relative_to(folder))] = path
    return out
