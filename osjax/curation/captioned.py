"""Captions that a server wrote, kept as they come: what was asked once is not asked again after a kill or a failure."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from osjax import json_file
from osjax.curation import caption
from osjax.curation.caption import Captioning
from osjax.curation.isolate import Pool
from osjax.curation.tables import Row

FILE = "captioned.jsonl"
AT_ONCE = 16  # clips between two writes


def fill(rows: Sequence[Row], pool: Pool, asked: Captioning, folder: Path) -> list[Row]:
    """The rows, those without a text with the captions of a server, or with a reason where it has none.

    rows: with `path` and `text`; those with a `reason` pass. pool: where frames are decoded. asked: of the server.
    folder: where captions are kept; a clip that changed since, or another model, is asked for anew. UserError where the
    server fails: what it wrote by then is kept.
    """
    path = folder / FILE
    known = dict(_kept(path))
    todo = [row for row in rows if not row.get("reason") and not row["text"] and _key(row, asked) not in known]
    folder.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for begin in range(0, len(todo), AT_ONCE):
            some = todo[begin : begin + AT_ONCE]
            for row, told in zip(some, caption.work(some, pool, asked), strict=True):
                known[_key(row, asked)] = told
                if not told.get("reason"):  # what it refused once, it may take another time
                    file.write(json.dumps({"clip": _key(row, asked), "text": told["text"]}) + "\n")
            file.flush()
    return [row if row["text"] or row.get("reason") else _with(row, known[_key(row, asked)]) for row in rows]


def _with(row: Row, told: Row) -> Row:
    return {**row, **{name: told[name] for name in ("text", "reason") if told.get(name)}}


def _key(row: Row, asked: Captioning) -> str:
    about = Path(row["path"]).stat()
    return json.dumps([str(row["path"]), about.st_size, about.st_mtime_ns, asked.model, asked.prompt])


def _kept(path: Path) -> Iterable[tuple[str, Row]]:
    """Captions of before by clip; a last line that a kill cut short is asked for again."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            told = json_file.parse(line)
            yield str(told["clip"]), {"text": str(told["text"])}
        except (ValueError, KeyError):
            continue
