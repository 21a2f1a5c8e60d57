"""Tables of clips, as CSV or Parquet with the original's columns."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from osjax import atomic
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


def read(path: Path | str) -> list[dict[str, Any]]:
    """Rows of a table; `path` values become absolute, relative ones taken from the table's folder.

    UserError for a table that is missing, empty or lacks the columns path and text, naming what is there.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"table {path} does not exist: give a .csv or .parquet file")
    if path.suffix == ".csv":
        rows = _read_csv(path)
    elif path.suffix == ".parquet":
        rows = _read_parquet(path)
    else:
        raise UserError(f"table {path} is neither .csv nor .parquet: convert it to one of them")
    if not rows:
        raise UserError(f"table {path} has no rows: list at least one clip")
    missing = [name for name in REQUIRED if name not in rows[0]]
    if missing:
        raise UserError(
            f"table {path} lacks the column {', '.join(missing)}; it has {', '.join(rows[0])}: rename or add it"
        )
    return [_typed(row, path, number) for number, row in enumerate(rows, 2)]


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


def _read_csv(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets put a mark first
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"table {path} is not readable as CSV in UTF-8 ({error}): write it anew") from error
    for line, row in enumerate(rows, 2):
        if None in row:  # where the reader puts values beyond the header
            raise UserError(f"table {path} line {line}: more values than columns: put quotes around text with commas")
    return rows


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet  # comes with tensorflow-datasets' readers; only needed for Parquet

    try:
        return pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowException as error:
        raise UserError(f"table {path} is not readable Parquet ({error}): write it anew") from error


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write `rows` to the CSV file `path`: the original's columns first, then others; what a row lacks stays empty."""
    extra = dict.fromkeys(name for row in rows for name in row if name not in COLUMNS)
    with atomic.complete(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *extra])
        writer.writeheader()
        writer.writerows(rows)
