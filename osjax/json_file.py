"""JSON files, of users and of a run's own state: an object or a UserError in one line, never what a parser raises."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from etils import epath

from osjax.errors import UserError

LARGEST = 2**26  # bytes


def read(path: Path | epath.Path, mend: str, keys: Iterable[str] = (), largest: int = LARGEST) -> dict[str, Any]:
    """The object in a JSON file.

    path: of the file. mend: what to do where it is missing or damaged, for the message. keys: that it must have.
    largest: bytes of a file that is still read. UserError, one line, for whatever is no such object: nested too deep,
    too large, not UTF-8, a list.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError("no file")
        about = path.stat()
        size = about.length if hasattr(about, "length") else about.st_size  # of etils; of pathlib
        if size > largest:
            raise ValueError(f"{size} bytes")
        value = parse(path.read_text(encoding="utf-8"))
        if lacking := [key for key in keys if key not in value]:
            raise ValueError(f"{lacking[0]} is missing")
    except (OSError, ValueError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UserError(f"{path} cannot be read ({reason}): {mend}") from error
    return value


def parse(text: str | bytes) -> dict[str, Any]:
    """The object in a JSON `text`. ValueError for anything else, however it is nested."""
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError(f"a {type(value).__name__} in place of an object")
    return value
