"""Tables of clips, as CSV or Parquet with the original's columns."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from osjax import atomic
from osjax.data import columns, plain_text, workers
from osjax.errors import UserError
from osjax.types import Row

COLUMNS = ("path", "text", "num_frames", "height", "width", "aspect_ratio", "resolution", "fps")
# What a damaged Parquet file raises.
DAMAGED = (pyarrow.ArrowException, OSError, ValueError, LookupError, OverflowError, MemoryError)
MEMORY_GB = 8.0  # address space of the process that tries a Parquet file
LEAST_BYTES, EXPANSION = 2**30, 64  # that its values may take, and how many times the bytes of the file
LARGEST = 2.0**53  # of a number in a table: larger ones are not whole any more
TEXTS = {*columns.REQUIRED, *(alias for aliases in columns.ALIASES.values() for alias in aliases)}
_NUMBERS = {
    "num_frames": int,
    "height": int,
    "width": int,
    "aspect_ratio": float,
    "resolution": int,
    "fps": float,
    # Of `osjax data`, where a table has them.
    **dict.fromkeys(("motion", "jitter", "blur", "text_area", "aesthetic", "duration"), float),
}


def read(path: Path | str) -> list[Row]:
    """Rows of a table; `path` values become absolute, relative ones taken from the table's folder.

    UserError for a table that is missing, empty or lacks the columns path and text, naming what is there; `columns` has
    what else these may be called.
    """
    rows = []
    for line, row in numbered(path):
        row, problem = typed(row, Path(path).parent)
        if problem:
            raise UserError(f"table {path} line {line}: {problem}")
        rows.append(row)
    return rows


def numbered(path: Path | str) -> list[tuple[int, Row]]:
    """The rows of a table as they stand, each with its line. path, UserError: as of `read`, but for values."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"table {path} does not exist: give a .csv or .parquet file")
    if path.suffix == ".csv":
        listed = list(csv_rows(path))
    elif path.suffix == ".parquet":
        listed = list(enumerate(_read_parquet(path), 2))
    else:
        raise UserError(f"table {path} is neither .csv nor .parquet: convert it to one of them")
    if not listed:
        raise UserError(f"table {path} has no rows: list at least one clip")
    ours = columns.renamed(listed[0][1], f"table {path}")
    return [(line, {ours.get(name, name): value for name, value in row.items()}) for line, row in listed]


def typed(row: Row, folder: Path) -> tuple[Row, str | None]:
    """A row with numbers in place of their text and an absolute path, and what is wrong with it, None where nothing is.

    row: as a table has it. folder: of the table. A value that is no number is None afterwards.
    """
    out, problem = dict(row), None
    if not row["path"]:
        problem = "path is missing: name the clip's file or drop the line"
    out["path"] = str(folder / str(row["path"] or ""))  # an absolute path stays as it is
    for name, kind in _NUMBERS.items():
        value = row.get(name)
        if value in (None, ""):
            if name in row:
                out[name] = None
            continue
        try:
            number = float(value)
            if kind is int and number != number:  # what pandas writes for nothing
                out[name] = None
                continue
            if abs(number) > LARGEST:
                raise OverflowError
            out[name] = kind(number)
        except (ValueError, OverflowError, TypeError):
            out[name], problem = None, f"{name} is {value!r}, not a number: mend it"
    return out, problem


def csv_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """The rows of the CSV file `path` and the lines where they begin. UserError that names the line of a mistake.

    A quote that is left open swallows the rows below it; it is an error at the line where it opens.
    """
    reader = csv.reader(io.StringIO(plain_text.read(path), newline=""), strict=True)
    header, begin = None, 1
    try:
        while (values := next(reader, None)) is not None:
            if header is None:
                header = values or None
            elif len(values) > len(header):
                raise UserError(
                    f"table {path} line {begin}: more values than columns: put quotes around text with commas"
                )
            elif values:
                yield begin, {**dict.fromkeys(header), **dict(zip(header, values, strict=False))}
            begin = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"table {path} line {begin}: a quote opens and is not closed, or stands inside text ({error}): mend its "
            "quotes, those inside text are written twice"
        ) from error


def try_parquet(path: Path) -> None:
    """UserError where a process of its own cannot read the Parquet file `path` whole, within limits.

    Its parser is native code. A few bytes may also stand for very many values.
    """
    size = path.stat().st_size
    most = max(LEAST_BYTES, EXPANSION * size)
    try:
        workers.apart(_read_through, path, most, timeout_s=60 + size / 1e6, memory_gb=MEMORY_GB)
    except workers.Lost as error:
        raise UserError(f"table {path} is not readable Parquet (it {error}): write it anew") from error
    except DAMAGED as error:
        raise UserError(f"table {path} is not readable Parquet ({error}): write it anew") from error


def _read_through(path: Path, most: int) -> None:
    read = 0
    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(1024):
            read += batch.nbytes
            if read > most:
                raise ValueError(f"it holds more than {most} bytes")


def _read_parquet(path: Path) -> list[Row]:
    try_parquet(path)
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            check_types(file.schema_arrow, path)
            return file.read().to_pylist()
    except DAMAGED as error:
        raise UserError(f"table {path} is not readable Parquet ({error}): write it anew") from error


def check_types(schema: Any, path: Path) -> None:
    """UserError, naming column and type, where a column of the Arrow `schema` of table `path` cannot hold its values.

    path and text are text; sizes, rates and scores are numbers, or text as a CSV has them.
    """
    from pyarrow import types

    for field in schema:
        kind = field.type.value_type if types.is_dictionary(field.type) else field.type
        is_text = types.is_null(kind) or "string" in str(kind) and not types.is_nested(kind)
        is_number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
        if field.name in TEXTS and not is_text:
            raise UserError(f"table {path}: column {field.name} is of type {field.type}, not string: write it as text")
        if field.name in _NUMBERS and not (is_text or is_number):
            raise UserError(f"table {path}: column {field.name} is of type {field.type}, not a number: write it as one")


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write `rows` to the CSV file `path`: the original's columns first, then others; what a row lacks stays empty."""
    extra = dict.fromkeys(name for row in rows for name in row if name not in COLUMNS)
    with atomic.complete(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *extra])
        writer.writeheader()
        writer.writerows(rows)
