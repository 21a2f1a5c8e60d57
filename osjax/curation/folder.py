"""From a folder of clips, or a table, to a data set to fine-tune on: nothing is dropped but what cannot train.

Beside the data set lie `clips.csv`, what became of every clip, and `made_from.json`: the same clips and captions are
not worked on again.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from osjax import atomic, json_file
from osjax.curation import captioned, captions, tables
from osjax.curation.caption import Captioning
from osjax.curation.captions import Words
from osjax.curation.isolate import Limits, Pool
from osjax.curation.probe import look
from osjax.curation.tables import Row
from osjax.data import dataset, table
from osjax.errors import UserError

MADE_FROM, CLIPS = "made_from.json", "clips.csv"


@dataclass(frozen=True)
class Built:
    """A data set of a folder's clips. path: of it. kept: number of its clips. dropped, others: lines, with why."""

    path: str
    kept: int
    dropped: tuple[str, ...]
    others: tuple[str, ...]


def build(source: Path, out: Path, words: Words, captioner: Captioning | None = None) -> Built:
    """The data set of the clips and pictures of a folder or a table, made where it is not there yet.

    source: the folder, or a .csv or .parquet table. out: folder to write to. words: of captions. captioner: a server
    that captions clips without one. UserError where no clip is left, where that server fails, or what
    `captions.of_folder` and `tables.rows` refuse.
    """
    if not source.exists():
        raise UserError(f"{source} does not exist: give a folder of clips, or a .csv or .parquet table", status=2)
    state = _state(source, words, captioner)
    if (before := _before(out, state)) is not None:
        return before
    rows, others = (list(tables.rows(source)), []) if source.is_file() else _of_folder(source)
    with Pool(Limits()) as pool:
        if captioner:
            rows = captioned.fill([{**row, "text": row["text"] or ""} for row in rows], pool, captioner, out)
        looked = pool.each(look, [_worded(row, words) for row in rows])
    kept = [row for row in looked if not row.get("reason")]
    dropped = tuple(f"{row['path']}: {row['reason']}" for row in looked if row.get("reason"))
    if not kept:
        raise UserError(f"no clip of {source} can be trained on: {'; '.join(dropped[:3])}", status=2)
    out.mkdir(parents=True, exist_ok=True)
    table.write_csv(out / CLIPS, looked)
    built = Built(str(dataset.build_clips(kept, out)), len(kept), dropped, tuple(others))
    atomic.write_text(out / MADE_FROM, json.dumps({"state": state, "words": asdict(words), **asdict(built)}, indent=1))
    return built


def _of_folder(source: Path) -> tuple[list[Row], Sequence[str]]:
    listed = captions.of_folder(source)
    return listed.rows, [str(path) for path in listed.others]


def _worded(row: Row, words: Words) -> Row:
    """The row with its whole caption, and a reason where it has none."""
    if row.get("reason"):  # a table's own row that leads elsewhere, say
        return row
    text = words.of(str(row["text"] or ""))
    if text:
        return {**row, "text": text}
    why = row.get("text_reason") or "it has no caption: write one beside it, or give --caption for those that have none"
    return {**row, "text": "", "reason": why}


def _state(source: Path, words: Words, captioner: Captioning | None) -> str:
    """A name for the clips, their captions and the words around them: 16 hex digits over names, sizes and times."""
    who = [captioner.model, captioner.prompt] if captioner else []
    files = sorted(p for p in source.rglob("*") if p.is_file()) if source.is_dir() else [source]
    seen = [[str(p), p.stat().st_size, p.stat().st_mtime_ns] for p in files]
    return hashlib.sha256(json.dumps([seen, asdict(words), who]).encode()).hexdigest()[:16]


def _before(out: Path, state: str) -> Built | None:
    """What was made of this very input; None of another, and where its record or its data set is gone or damaged."""
    try:
        told = json_file.read(out / MADE_FROM, "it is made anew", keys=("state", "path", "kept", "dropped", "others"))
        dataset.open_source(told["path"])
    except UserError:
        return None
    if told["state"] != state:
        return None
    return Built(told["path"], int(told["kept"]), tuple(told["dropped"]), tuple(told["others"]))
