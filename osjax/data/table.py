"""Tables of clips, as CSV or Parquet with the original's columns."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from osjax import atomic
from osjax.data import plain_text
from osjax.errors import UserError

COLUMNS = ("path", "text", "num_frames", "height", "width", "aspect_ratio", "resolution", "fps")
REQUIRED = ("path", "text")
_NUMBERS = {
    "num_frames": int,
    "height": int,
    "width": int,
    "aspect_ratio": float,
    "resolution": int,
    "fps": float,
}
_SCORES = ("motion", "jitter", "blur", "text_area", "aesthetic", "duration")  # of `osjax data`, where a table has them


def read(path: Path | str) -> list[dict[str, Any]]:
    """Rows of a table; `path` values become absolute, relative ones taken from the table's folder.

    UserError for a table that is missing, empty or lacks the columns path and text, naming what is there.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"table {path} does not exist: give a .csv or .parquet file")
    if path.suffix == ".csv":
        numbered = list(csv_rows(path))
        lines, rows = [line for line, _ in numbered], [row for _, row in numbered]
    elif path.suffix == ".parquet":
        rows = _read_parquet(path)
        lines = range(2, 2 + len(rows))
    else:
        raise UserError(f"table {path} is neither .csv nor .parquet: convert it to one of them")
    if not rows:
        raise UserError(f"table {path} has no rows: list at least one clip")
    missing = [name for name in REQUIRED if name not in rows[0]]
    if missing:
        raise UserError(
            f"table {path} lacks the column {', '.join(missing)}; it has {', '.join(rows[0])}: rename or add it"
        )
    return [_typed(row, path, number) for number, row in zip(lines, rows, strict=True)]


def _typed(row: dict[str, Any], table: Path, line: int) -> dict[str, Any]:
    out = dict(row)
    if not row["path"]:
        raise UserError(f"table {table} line {line}: path is missing: name the clip's file or drop the line")
    out["path"] = str(Path(table).parent / row["path"])  # an absolute path stays as it is
    for name, kind in _NUMBERS.items():
        value = row.get(name)
        if value in (None, ""):
            continue
        try:
            out[name] = kind(float(value))
        except (ValueError, OverflowError) as error:  # the latter for infinity
            raise UserError(f"table {table} line {line}: {name} is {value!r}, not a number: mend it") from error
    return out


def csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
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


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet  # comes with tensorflow-datasets' readers; only needed for Parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            check_types(file.schema_arrow, path)
            return file.read().to_pylist()
    except pyarrow.ArrowException as error:
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
        if field.name in REQUIRED and not is_text:
            raise UserError(f"table {path}: column {field.name} is of type {field.type}, not string: write it as text")
        if field.name in (*_NUMBERS, *_SCORES) and not (is_text or is_number):
            raise UserError(f"table {path}: column {field.name} is of type {field.type}, not a number: write it as one")


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write `rows` to the CSV file `path`: the original's columns first, then others; what a row lacks stays empty."""
    extra = dict.fromkeys(name for row in rows for name in row if name not in COLUMNS)
    with atomic.complete(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *extra])
        writer.writeheader()
        writer.writerows(rows)
