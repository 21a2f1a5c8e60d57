"""Sizes and SHA-256 sums of a data set's shards, written when it is built, so that damage is found and named."""

import hashlib
import json
from pathlib import Path

from osjax import atomic, file_name, json_file
from osjax.errors import UserError

FILE = "fingerprints.json"


def of_file(path: Path) -> dict[str, int | str]:
    """The fingerprint of the file `path`: {"bytes": its size, "sha256": hex digits of its sum}."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def write(folder: Path, *patterns: str) -> None:
    """Write the fingerprints of the files in `folder` whose names match `patterns`; hidden ones are nobody's shards."""
    files = [path for pattern in patterns for path in sorted(folder.glob(pattern)) if not path.name.startswith(".")]
    atomic.write_text(folder / FILE, json.dumps({path.name: of_file(path) for path in files}, indent=1))


def read(folder: Path) -> dict[str, dict[str, int | str]]:
    """The fingerprints {file name: {"bytes", "sha256"}} of the data set in `folder`; empty where it has none.

    UserError for a damaged list.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    mend = "copy the data set again, or build it anew"
    listed = json_file.read(path, mend)
    try:
        if wrong := [name for name in listed if not file_name.is_plain(name)]:
            raise ValueError(f"{wrong[0][:40]!r} is no file's name")
        return {name: {"bytes": int(x["bytes"]), "sha256": x["sha256"]} for name, x in listed.items()}
    except (ValueError, LookupError, TypeError, OverflowError) as error:
        raise UserError(f"{path} is damaged ({error}): {mend}") from error


def check_sizes(folder: Path, made_anew: str = "") -> None:
    """Compare the sizes of the files in `folder` with their fingerprints; reads no shard.

    made_anew: name of a file that may be missing or damaged. UserError that names one which is missing, cut short or
    too long.
    """
    for name, want in read(folder).items():
        path = folder / name
        if name == made_anew:
            continue
        if not path.is_file():
            raise UserError(f"shard {path} is missing: copy the data set again, or build it anew")
        if path.stat().st_size != want["bytes"]:
            raise UserError(
                f"shard {path} has {path.stat().st_size} bytes instead of {want['bytes']}: copy it again, or build the "
                "data set anew"
            )


def check(folder: Path, made_anew: str = "") -> int:
    """The number of files of `folder`, after all of each was read and compared with its fingerprint.

    made_anew: see `check_sizes`. UserError that names one which is missing or whose contents changed.
    """
    check_sizes(folder, made_anew)
    names = [name for name in read(folder) if name != made_anew]
    for name in names:
        check_file(folder, name)
    return len(names)


def check_file(folder: Path, name: str) -> None:
    """UserError where the file `name` in `folder` has a fingerprint, and is missing or not as that has it."""
    want, path = read(folder).get(name), folder / name
    if want is not None and (not path.is_file() or of_file(path) != want):
        raise UserError(f"shard {path} is damaged: copy it again, or build the data set anew")
