"""Seals: sizes and checksums of a checkpoint's files, so that a damaged one is known before it is trusted.

A seal is a small JSON file beside the checkpoint, written once the checkpoint is complete. Array formats notice a
missing file but not always a flipped bit; a seal notices both.
"""

import json
import logging
import zlib

from etils import epath

from osjax import json_file
from osjax.errors import UserError
from osjax.object_store import is_url

log = logging.getLogger(__name__)

CHUNK = 2**22  # bytes read at once


def write_seal(checkpoint: epath.Path, seal: epath.Path) -> None:
    """Seal every file below `checkpoint` in the file `seal`. FileNotFoundError if one is being deleted meanwhile."""
    files = {name: [path.stat().length, checksum(path)] for name, path in _files(checkpoint).items()}
    seal.parent.mkdir(parents=True, exist_ok=True)
    if is_url(seal):  # objects are whole by themselves, and some stores cannot rename them
        seal.write_text(json.dumps(files))
        return
    partial = seal.with_suffix(".partial")
    partial.write_text(json.dumps(files))
    partial.replace(seal)


def read_seal(seal: epath.Path) -> dict[str, tuple[int, int]]:
    """(bytes, sum) of each file that a seal is of. UserError where it is no seal."""
    mend = "delete it, and its checkpoint is not verified"
    sealed = json_file.read(seal, mend)
    try:
        return {name: (int(size), int(value)) for name, (size, value) in sealed.items()}
    except (ValueError, TypeError) as error:
        raise UserError(f"{seal} is damaged ({error}): {mend}") from error


def damage(checkpoint: epath.Path, seal: epath.Path, item: str = "", sums: bool = True) -> str | None:
    """What is wrong with a checkpoint in a few words; None if it is as its `seal` has it, or was never sealed.

    item: the folder in it that is looked at; all of it by default. sums: read the files and compare their sums too, not
    their sizes alone. A seal that is damaged itself says nothing; it is removed, loudly, and made anew with the next.
    """
    if not seal.exists():
        return None
    try:
        sealed = read_seal(seal)
    except UserError as error:
        log.warning("seal %s is damaged (%s): its checkpoint is not verified", seal, error)
        seal.unlink(missing_ok=True)
        return None
    sealed = {name: value for name, value in sealed.items() if name.startswith(f"{item}/" if item else "")}
    files = _files(checkpoint)
    missing = sorted(sealed.keys() - files.keys())
    if missing:
        return f"file {missing[0]} is missing"
    for name, (size, expected) in sealed.items():
        length = files[name].stat().length
        if length != size:
            return f"file {name} has {length} of {size} bytes"
        if sums and checksum(files[name]) != expected:
            return f"file {name} has changed"
    return None


def check(item: epath.Path, sums: bool) -> None:
    """UserError where one item of a checkpoint, N/ITEM, is not as the checkpoint's seal has it.

    item: its folder. sums: see `damage`.
    """
    checkpoint = item.parent
    seal = checkpoint.parent.parent / f"{checkpoint.parent.name}.seals" / f"{checkpoint.name}.json"
    if reason := damage(checkpoint, seal, item.name, sums):
        raise UserError(f"checkpoint {checkpoint} is damaged ({reason}): give another, such as the one before it")


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
