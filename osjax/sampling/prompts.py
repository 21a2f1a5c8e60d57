"""Tables of prompts: txt (a prompt a line), csv or jsonl with the columns text, ref, neg, name, seed and suite."""

import difflib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from osjax.data import plain_text, table
from osjax.errors import UserError
from osjax.sampling import references
from osjax.types import Row

COLUMNS = ("text", "ref", "neg", "name", "seed", "suite")
SUFFIXES = (".txt", ".csv", ".jsonl")
TEXTS = ("text", "ref", "neg", "name", "suite")


@dataclass(frozen=True)
class Request:
    """One row. ref: the files given, each checked to exist. neg, name, seed: None where the row leaves them out.

    suite: of prompts that are scored together; that of the row, or its file's name. samples: videos to make, instead of
    what all rows get.
    """

    text: str
    ref: tuple[Path, ...] = ()
    neg: str | None = None
    name: str | None = None
    seed: int | None = None
    suite: str | None = None
    samples: int | None = None


def read(path: Path | str) -> list[Request]:
    """The rows of the table at `path`, or of the tables in the folder `path`, one after the other by name.

    Files in `ref` are taken from the table's folder, or from where the command runs, and lie there, links followed.
    UserError that names the line for a missing text, an unknown column, a seed that is no number or a file that is
    not there.
    """
    path = Path(path)
    if path.is_dir():
        tables = [file for file in sorted(path.iterdir()) if file.suffix.lower() in SUFFIXES and file.name[0] != "."]
        if not tables:
            raise UserError(f"folder {path} holds no prompts: give one with {', '.join(SUFFIXES)} files")
        return [row for file in tables for row in read(file)]
    readers = {".txt": _txt, ".csv": table.csv_rows, ".jsonl": _jsonl}
    if path.suffix.lower() not in readers:
        raise UserError(f"prompts {path} are neither {' nor '.join(readers)}: convert the file to one of them")
    if not path.is_file():
        raise UserError(f"prompts {path} do not exist: give a .txt, .csv or .jsonl file")
    rows = [_request(row, f"{path} line {line}", path.parent) for line, row in readers[path.suffix.lower()](path)]
    if not rows:
        raise UserError(f"prompts {path} are empty: write at least one prompt")
    return [replace(row, suite=row.suite or path.stem) for row in rows]


def merged(requests: Sequence[Request], by_suite: bool) -> list[Request]:
    """The requests without those that ask for the same once more, in order; of their samples the most.

    by_suite: the same prompt in two suites is two.
    """
    distinct: dict[Request, Request] = {}
    for one in requests:
        key = replace(one, samples=None, suite=one.suite if by_suite else None)
        before = distinct.setdefault(key, one)
        distinct[key] = replace(before, samples=max(before.samples or 0, one.samples or 0) or None)
    return list(distinct.values())


def _txt(path: Path) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(plain_text.read(path).split("\n"), 1):
        if line.strip():
            yield number, {"text": line.strip()}


def _jsonl(path: Path) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(plain_text.read(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} line {number} is no JSON ({error}): write one object a line") from error
        if not isinstance(row, dict):
            raise UserError(f'{path} line {number} is no object: write {{"text": "..."}}')
        yield number, row


def _request(row: Row, where: str, folder: Path) -> Request:
    for column in row:
        if column not in COLUMNS and column not in table.COLUMNS:  # tables of clips may be sampled from, too
            close = difflib.get_close_matches(str(column), COLUMNS, n=1)
            mend = f"did you mean {close[0]}?" if close else f"the columns are {', '.join(COLUMNS)}"
            raise UserError(f"{where}: unknown column {column!r}; {mend}")
    texts = {name: None if row.get(name) != row.get(name) else row.get(name) for name in TEXTS}  # NaN is none
    if isinstance(texts["ref"], list) and all(isinstance(part, str) for part in texts["ref"]):
        texts["ref"] = references.SEPARATOR.join(texts["ref"])
    for name, value in texts.items():
        if value is not None and not isinstance(value, str):
            raise UserError(f"{where}: {name} is {value!r}, not text: put quotes around it")
    try:
        text = plain_text.caption(texts["text"])
    except UserError as error:
        raise UserError(f"{where}: text {error}") from error
    if not text:
        raise UserError(f"{where}: text is missing: write a prompt or drop the line")
    try:
        ref = references.paths(texts["ref"] or "", folder)
        for file in ref:  # a table of a stranger must not show what else is here
            if not any(file.resolve().is_relative_to(root.resolve()) for root in (folder, Path())):
                raise UserError(f"reference {file} lies elsewhere: run the command from a folder that holds it")
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    return Request(
        text, ref, texts["neg"], texts["name"] or None, _seed(row.get("seed"), where), texts["suite"] or None
    )


def _seed(value: Any, where: str) -> int | None:
    if value is None or value == "":
        return None
    try:
        seed = int(str(value))  # text from a csv, a number from a jsonl
    except ValueError as error:
        raise UserError(f"{where}: seed is {value!r}, not a whole number: mend it") from error
    if not 0 <= seed < 2**63:
        raise UserError(f"{where}: seed is {seed}: give a number from 0 to 2**63 - 1")
    return seed
