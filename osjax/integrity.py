"""Seals: sizes and checksums of a checkpoint's files, so that a damaged one is known before it is trusted.

A seal is a small JSON file beside the checkpoint, written once the checkpoint is complete. Array formats notice a
missing file but not always a flipped bit; a seal notices both.
"""

import contextlib
import json
import logging
import re
import time
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from etils import epath

from osjax import json_file
from osjax.errors import UserError
from osjax.object_store import is_url

log = logging.getLogger(__name__)

CHUNK = 2**19  # bytes read at once
THREADS = 4  # that read; sums are taken outside of Python's lock
LATE_S = 600.0  # after which process 0 sums what another one was to sum
Sums = dict[str, tuple[int, int]]  # (bytes, CRC-32) of files by their path in a checkpoint


def seal_of(checkpoint: epath.Path) -> epath.Path:
    """Where the seal of a checkpoint FOLDER/N is: beside FOLDER, as what is in it belongs to Orbax."""
    return checkpoint.parent.parent / f"{checkpoint.parent.name}.seals" / f"{checkpoint.name}.json"


def write_seal(checkpoint: epath.Path, index: int = 0, count: int = 1) -> None:
    """Seal every file below `checkpoint`. FileNotFoundError if one is being deleted meanwhile.

    index, count: this process, and how many there are. Each sums the files that it wrote itself, as Orbax names them,
    and process 0 waits for the sums of the others; those that do not come it takes itself.
    """
    seal, files = seal_of(checkpoint), _files(checkpoint)
    mine = _summed({name: path for name, path in files.items() if _writer(name, count) == index})
    if index:
        _put(_part(seal, index), mine)
        return
    for other in range(1, count):
        theirs = {name: path for name, path in files.items() if _writer(name, count) == other}
        mine |= _waited(_part(seal, other), theirs) or _summed(theirs)
    _put(seal, mine)
    for other in range(1, count):
        _part(seal, other).unlink(missing_ok=True)


def _writer(name: str, count: int) -> int:
    """The process that wrote a file of a checkpoint."""
    told = re.search(r"ocdbt\.process_(\d+)/", name)
    return int(told.group(1)) if told and int(told.group(1)) < count else 0


def _part(seal: epath.Path, index: int) -> epath.Path:
    return seal.with_suffix(f".part{index}")


def _waited(part: epath.Path, files: Mapping[str, epath.Path]) -> Sums | None:
    """What another process found of its files; None where it does not say so in time."""
    end = time.monotonic() + LATE_S
    while files and time.monotonic() < end:
        with contextlib.suppress(OSError, UserError):
            told = read_seal(part)
            if told.keys() == files.keys():  # and not those of an attempt before
                return told
        time.sleep(0.1)
    return None


def _put(path: epath.Path, sums: Sums) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_url(path):  # objects are whole by themselves, and some stores cannot rename them
        path.write_text(json.dumps(sums))
        return
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(sums))
    partial.replace(path)


def _summed(files: Mapping[str, epath.Path]) -> Sums:
    with ThreadPoolExecutor(THREADS) as pool:
        sums = pool.map(checksum, files.values())
        return {name: (path.stat().length, value) for (name, path), value in zip(files.items(), sums, strict=True)}


def read_seal(seal: epath.Path) -> dict[str, tuple[int, int]]:
    """(bytes, sum) of each file that a seal is of. UserError where it is no seal."""
    mend = "delete it, and its checkpoint is not verified"
    sealed = json_file.read(seal, mend)
    try:
        return {name: (int(size), int(value)) for name, (size, value) in sealed.items()}
    except (ValueError, TypeError) as error:
        raise UserError(f"{seal} is damaged ({error}): {mend}") from error


def damage(checkpoint: epath.Path, item: str = "", sums: bool = True, index: int = 0, count: int = 1) -> str | None:
    """What is wrong with a checkpoint in a few words; None if it is as its seal has it, or was never sealed.

    item: the folder in it that is looked at; all of it by default. sums: read the files and compare their sums too, not
    their sizes alone. index, count: of `count` parts of the files only this one is read. A seal that is damaged itself
    says nothing; it is removed, loudly, and made anew with the next.
    """
    seal = seal_of(checkpoint)
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
    for name, (size, _) in sealed.items():
        length = files[name].stat().length
        if length != size:
            return f"file {name} has {length} of {size} bytes"
    # Large ones first, so that parts are of about the same size.
    names = sorted(sealed, key=lambda name: (-sealed[name][0], name))[index::count] if sums else []
    now = _summed({name: files[name] for name in names})
    changed = [name for name in names if now[name] != sealed[name]]
    return f"file {changed[0]} has changed" if changed else None


def check(item: epath.Path, sums: bool) -> bool:
    """Whether a checkpoint has a seal. UserError where one item of it, N/ITEM, is not as the seal has it.

    item: its folder. sums: see `damage`.
    """
    checkpoint = item.parent
    if reason := damage(checkpoint, item.name, sums):
        raise UserError(f"checkpoint {checkpoint} is damaged ({reason}): give another, such as the one before it")
    return seal_of(checkpoint).exists()


def checksum(path: epath.Path) -> int:
    """CRC-32 of the file at `path`."""
    value, buffer = 0, memoryview(bytearray(CHUNK))  # of a size that the processor keeps near
    with path.open("rb") as file:
        while length := file.readinto(buffer):
            value = zlib.crc32(buffer[:length], value)
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
