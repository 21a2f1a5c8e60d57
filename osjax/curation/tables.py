"""Tables between the steps: rows of a folder, a CSV or a Parquet file in, streamed Parquet or CSV out.

A file appears under its name only when it is complete, so a step that is killed leaves nothing half-written.
"""

import contextlib
import itertools
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from osjax import atomic
from osjax.data import columns, plain_text, table
from osjax.data.opened import SUFFIXES
from osjax.errors import UserError
from osjax.types import Row

log = logging.getLogger(__name__)
CAPTION = 1 << 20  # bytes of a file beside a video that is still read
GROUP = 1 << 16  # rows of a Parquet row group
MEND = "give --root=FOLDER, the folder that holds the clips"
OWN_SUFFIXES = (".work", ".clips")  # folders that steps write, which may lie among their input


def rows(source: Path | str, root: Path | str | None = None) -> Iterator[Row]:
    """The rows of `source`: a table, or a folder of videos (captions from a .txt beside each, empty without one).

    Paths become absolute. A row whose path leads out of `root` (default: the folder itself, or the table's), links
    followed, has a `reason`, as has one whose numbers are none: a table from elsewhere must not reach other files of
    this machine, and the other rows go on. Parquet is read in batches.

    A row that has no caption has an empty `text`, see `plain_text.caption`; where that is so because its caption cannot
    be read, the log and the row's `text_reason` say why.
    """
    source = Path(source)
    root = Path(root) if root else source if source.is_dir() else source.absolute().parent
    listed = _of_folder(source) if source.is_dir() else _of_table(source)
    for row in listed:
        row = _captioned(row, root)
        try:
            row["path"] = str(inside(row["path"], root))
            if not _is_text(row["path"]):
                row["path"] = row["path"].encode("utf-8", "backslashreplace").decode()
                raise UserError(f"the name {row['path']} is not UTF-8: rename the file")
        except UserError as error:
            row["reason"] = row.get("reason") or str(error)
            log.warning("dropped: %s", row["reason"])
        yield row


def _is_text(name: str) -> bool:
    """Whether a name is Unicode; those of other bytes come with surrogates, which no table can hold."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _captioned(row: Row, root: Path) -> Row:
    text = row["text"]
    where = text if isinstance(text, Path) else f"the caption of {row['path']}"
    try:
        if isinstance(text, Path):
            text = _beside(text, root)
        text = plain_text.caption(text)
        told = {name: value for name, value in row.items() if name != "text_reason" or not text}
        return {**told, "text": text}
    except (UserError, OSError) as error:
        why = str(error).removeprefix(f"{where} ")
        log.warning("%s %s", where, why)
        return {**row, "text": "", "text_reason": f"{where} {why}"}


def _beside(path: Path, root: Path) -> str:
    """The text of the file beside a video, "" where there is none. UserError where it is anything but a text file."""
    if not os.path.lexists(path):
        return ""
    file = inside(path, root)
    if not file.is_file():
        raise UserError("is no file")
    if file.stat().st_size > CAPTION:
        raise UserError(f"has {file.stat().st_size} bytes, more than a caption")
    return plain_text.decode(file.read_bytes())


def inside(path: Path | str, root: Path | str, mend: str = MEND) -> Path:
    """`path` as an absolute one, links followed; UserError, which ends with `mend`, outside of the folder `root`."""
    try:
        resolved, root = Path(path).resolve(), Path(root).resolve()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # whoever reads it says so
            resolved.lstat()
    except (OSError, ValueError, RuntimeError) as error:  # a loop of links, too long a name, NUL
        raise UserError(f"{path} is no path ({error})") from error
    if not resolved.is_relative_to(root):
        raise UserError(f"{path} lies outside of {root}: {mend}")
    return resolved


def videos(folder: Path) -> list[Path]:
    """The video files below a folder, in order; hidden ones and what steps wrote there are left out.

    Other files with a caption beside them are told in the log: somebody took them for videos.
    """
    there = [p for p in sorted(folder.rglob("*")) if not any(_is_own(part) for part in p.relative_to(folder).parts)]
    files = [p for p in there if p.is_file()]
    for path in there:
        if path.suffix.lower() in SUFFIXES and not path.is_file() and not path.is_dir():
            log.warning("%s is left out: a pipe, a device or a link to nothing", path)
    named = [p for p in files if p.suffix.lower() in SUFFIXES]
    captioned = {p.with_suffix("") for p in files if p.suffix == ".txt"} - {p.with_suffix("") for p in named}
    if odd := [p for p in files if p.with_suffix("") in captioned and p.suffix != ".txt"]:
        log.warning("%d files with a caption have no name of a video and are left out, such as %s", len(odd), odd[0])
    return named


def _is_own(part: str) -> bool:
    return part.startswith(".") or part.endswith(OWN_SUFFIXES)


def _of_folder(folder: Path) -> Iterator[Row]:
    files = videos(folder)
    if not files:
        raise UserError(f"folder {folder} holds no video ({', '.join(SUFFIXES)}): give another one or a table")
    return ({"path": str(p), "text": p.with_suffix(".txt")} for p in files)


def _of_table(source: Path) -> Iterator[Row]:
    if source.suffix != ".parquet" or not source.is_file():
        return _checked(table.numbered(source), source.parent)
    return _of_parquet(source)


def _of_parquet(source: Path) -> Iterator[Row]:
    table.try_parquet(source)
    try:
        file = pq.ParquetFile(source)
    except table.DAMAGED as error:
        raise UserError(f"table {source} is not readable Parquet ({error}): write it anew") from error
    with file:
        table.check_types(file.schema_arrow, source)
        names = file.schema_arrow.names
        ours = columns.renamed(names, f"table {source}")
        rows = ({ours.get(name, name): value for name, value in row.items()} for row in _parquet_rows(file, source))
        yield from _checked(enumerate(rows, 2), source.parent)


def _parquet_rows(file: pq.ParquetFile, source: Path) -> Iterator[Row]:
    batches = file.iter_batches(1024)
    while True:
        try:
            batch = next(batches, None)
            listed = [] if batch is None else batch.to_pylist()
        except table.DAMAGED as error:
            raise UserError(f"table {source} is not readable Parquet ({error}): write it anew") from error
        if batch is None:
            return
        yield from listed


def _checked(numbered: Iterable[tuple[int, Row]], folder: Path) -> Iterator[Row]:
    """Rows with numbers for numbers, and with a `reason` where that cannot be."""
    for line, row in numbered:
        row, problem = table.typed(row, folder)
        if problem:
            log.warning("dropped: line %d: %s", line, problem)
        yield {**row, "reason": f"line {line}: {problem}"} if problem else row


def shards(source: Iterable[Row], size: int) -> Iterator[list[Row]]:
    """The rows of `source` in lists of `size`; the last has the rest."""
    source = iter(source)
    while chunk := list(itertools.islice(source, size)):
        yield chunk


def to_arrow(chunk: Sequence[Row]) -> pa.Table:
    """The rows of `chunk`, of any columns, as an Arrow table; what a row lacks is null. UserError for mixed types."""
    names = dict.fromkeys(name for row in chunk for name in row)
    try:
        return pa.table({name: [row.get(name) for row in chunk] for name in names})
    except pa.ArrowException as error:
        raise UserError(f"a column mixes types ({error}): give every value of a column one type") from error


def write(path: Path | str, chunk: Sequence[Row]) -> None:
    """Write the rows of `chunk` to `path`: .parquet, or .csv with the original's columns first."""
    if Path(path).suffix == ".csv":
        table.write_csv(path, chunk)
        return
    with atomic.complete(path) as partial:
        pq.write_table(to_arrow(chunk), partial)


def read(path: Path | str) -> list[Row]:
    """All rows of a Parquet file `path` that `write` made, paths as they stand. UserError for a damaged one."""
    try:
        return pq.read_table(path).to_pylist()
    except table.DAMAGED as error:
        raise UserError(f"{path} is damaged ({error}): delete it and run the same command again") from error


def merge(path: Path, parts: Sequence[Path], kept: bool) -> int:
    """Join Parquet `parts` into the table `path`. Returns how many rows it has.

    kept: take rows without a `reason`; else those with one. Parts are read one after the other. CSV is the original's
    format and is put together in memory.
    """
    if path.suffix == ".csv":
        chosen = [row for part in parts for row in read(part) if (row.get("reason") is None) == kept]
        write(path, [_without_reason(row) if kept else row for row in chosen])
        return len(chosen)
    schema = pa.unify_schemas([pq.read_schema(part) for part in parts], promote_options="permissive")
    if kept:
        schema = pa.schema([field for field in schema if field.name not in ("reason", "stage")])
    count = 0
    with atomic.complete(path) as partial, pq.ParquetWriter(partial, schema) as writer:
        for chunk in _gathered((_chosen(batch, schema, kept) for part in parts for batch in _batches(part)), GROUP):
            writer.write_table(chunk)
            count += len(chunk)
    return count


def _batches(part: Path) -> Iterator[pa.Table]:
    with pq.ParquetFile(part) as file:
        for batch in file.iter_batches(GROUP):
            yield pa.Table.from_batches([batch])


def _chosen(part: pa.Table, schema: pa.Schema, kept: bool) -> pa.Table:
    """The rows without a reason, or those with one, in the columns of `schema`."""
    reasons = part["reason"] if "reason" in part.column_names else pa.nulls(len(part))
    part = part.filter(pc.is_null(reasons) if kept else pc.is_valid(reasons))
    columns = [
        part[field.name].cast(field.type) if field.name in part.column_names else pa.nulls(len(part), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _gathered(pieces: Iterable[pa.Table], size: int) -> Iterator[pa.Table]:
    """Tables of `size` rows or a little more: many small row groups would read slowly."""
    held, rows = [], 0
    for piece in pieces:
        held.append(piece)
        rows += len(piece)
        if rows >= size:
            yield pa.concat_tables(held)
            held, rows = [], 0
    if held:
        yield pa.concat_tables(held)


def _without_reason(row: Row) -> Row:
    return {name: value for name, value in row.items() if name not in ("reason", "stage")}
