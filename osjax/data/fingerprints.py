"""Sizes and SHA-256 sums of a data set's shards, written when it is built, so that damage is found and named."""

import hashlib
import json
from pathlib import Path

from osjax.errors import UserError

FILE = "fingerprints.json"


def of_file(path: Path) -> dict[str, int | str]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def write(folder: Path, pattern: str) -> None:
    """Fingerprints of the files in a folder that match a pattern; complete or not there."""
    found = {path.name: of_file(path) for path in sorted(folder.glob(pattern))}
    part = folder / f"{FILE}.part"
    part.write_text(json.dumps(found, indent=1))
    part.replace(folder / FILE)


def read(folder: Path) -> dict[str, dict[str, int | str]]:
    """name -> bytes, sha256; empty for data sets without fingerprints."""
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text())
        return {str(Path(name).name): {"bytes": int(x["bytes"]), "sha256": x["sha256"]} for name, x in found.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}): copy the data set again, or build it anew") from error


def check_sizes(folder: Path) -> None:
    """UserError that names a shard which is missing, cut short or too long. Reads no shard."""
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
    """As `check_sizes`, and UserError that names a shard whose contents changed. Reads all; the number of shards."""
    check_sizes(folder)
    found = read(folder)
    for name, want in found.items():
        if of_file(folder / name)["sha256"] != want["sha256"]:
            raise UserError(f"shard {folder / name} is damaged: copy it again, or build the data set anew")
    return len(found)
