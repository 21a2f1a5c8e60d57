"""Sizes and SHA-256 sums of a data set's shards, written when it is built, so that damage is found and named."""

import hashlib
import json
from pathlib import Path

from osjax import atomic
from osjax.errors import UserError

FILE = "fingerprints.json"


def of_file(path: Path) -> dict[str, int | str]:
    """The fingerprint of the file `path`: {"bytes": its size, "sha256": hex digits of its sum}."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def write(folder: Path, pattern: str) -> None:
    """Write the fingerprints of the files in `folder` whose names match `pattern`; hidden ones are nobody's shards."""
    shards = [path for path in sorted(folder.glob(pattern)) if not path.name.startswith(".")]
    atomic.write_text(folder / FILE, json.dumps({path.name: of_file(path) for path in shards}, indent=1))


def read(folder: Path) -> dict[str, dict[str, int | str]]:
    """The fingerprints {file name: {"bytes", "sha256"}} of the data set in `folder`; empty where it has none.

    UserError for a damaged list.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        listed = json.loads(path.read_text())
        return {str(Path(name).name): {"bytes": int(x["bytes"]), "sha256": x["sha256"]} for name, x in listed.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}): copy the data set again, or build it anew") from error


def check_sizes(folder: Path) -> None:
    """Compare the sizes of the shards in `folder` with their fingerprints; reads no shard.

    UserError that names one which is missing, cut short or too long.
    """
    for name, want in read(folder).items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"shard {path} is missing: copy the data set again, or build it anew")
        if path.stat().st_size != want["bytes"]:
            raise UserError(
                f"shard {path} has {path.stat().st_size} bytes instead of {want['bytes']}: copy it again, or build the "
                "data set anew"
            )


def check(folder: Path) -> int:
    """The number of shards in `folder`, after all of each was read and compared with its fingerprint.

    UserError that names one which is missing or whose contents changed.
    """
    check_sizes(folder)
    fingerprints = read(folder)
    for name, want in fingerprints.items():
        if of_file(folder / name)["sha256"] != want["sha256"]:
            raise UserError(f"shard {folder / name} is damaged: copy it again, or build the data set anew")
    return len(fingerprints)
