"""Captions of a folder of clips and pictures, however other tools leave them there.

One list for all of them: `metadata.jsonl`, a line of JSON each with path and text, or `captions.txt` and `videos.txt`,
line by line. Else a file beside each: `.txt`, or `.json` with the text under one of its names (`data/columns.py`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from osjax import json_file
from osjax.curation.tables import OWN_SUFFIXES, Row, inside
from osjax.data import columns, plain_text
from osjax.data.opened import SUFFIXES
from osjax.errors import UserError

MOVING = (*SUFFIXES, ".gif")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
LISTS = ("metadata.jsonl", "captions.txt", "videos.txt")


@dataclass(frozen=True)
class Words:
    """What captions say beside their own words.

    default: caption of clips that have none; empty: these are left out. prefix: ahead of every caption. trigger: a word
    that stands for what is new, put first where a caption does not have it.
    """

    default: str = ""
    prefix: str = ""
    trigger: str = ""

    def of(self, text: str) -> str:
        """The whole caption of a clip whose own words are `text`; empty where there is none."""
        text = text or self.default
        if not text:
            return ""
        if self.trigger and self.trigger.casefold() not in text.casefold():
            text = f"{self.trigger}, {text}"
        return f"{self.prefix}{text}"


@dataclass(frozen=True)
class Folder:
    """What a folder holds. rows: path and text of every clip and picture. others: files that are neither, nor captions.

    A row without a caption has an empty text, and a `text_reason` where one is there that cannot be read.
    """

    rows: list[Row]
    others: list[Path]


def of_folder(folder: Path) -> Folder:
    """The clips and pictures below a folder with their captions. UserError where are none, or a list is damaged."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and not _hidden(p.relative_to(folder))]
    media = [p for p in files if p.suffix.lower() in (*MOVING, *PICTURES)]
    if not media:
        raise UserError(
            f"folder {folder} holds no clip and no picture ({', '.join((*MOVING, *PICTURES))}): give another"
        )
    listed, used = _listed(folder), {folder / name for name in LISTS}
    rows: list[Row] = []
    for path in media:
        beside = [p for p in (path.with_suffix(".txt"), path.with_suffix(".json")) if p.is_file()]
        used.update(beside)
        try:
            for read in (path, *beside):
                inside(read, folder)
        except UserError as error:
            rows.append({"path": str(path), "text": "", "text_reason": str(error)})
            continue
        try:
            text = listed[path] if path in listed else _beside(beside)
            rows.append({"path": str(path), "text": plain_text.caption(text)})
        except UserError as error:
            rows.append({"path": str(path), "text": "", "text_reason": f"its caption {error}"})
    lost = [path for path in listed if path not in media]
    rows += [{"path": str(path), "text": "", "text_reason": "a list names it, but it is not there"} for path in lost]
    return Folder(rows, [p for p in files if p not in media and p not in used])


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") or part.endswith(OWN_SUFFIXES) for part in path.parts)


def _listed(folder: Path) -> dict[Path, Any]:
    """Captions by the paths that a list of the folder names."""
    lines, texts, clips = (folder / name for name in LISTS)
    if lines.is_file():
        return {folder / str(row["path"]): row["text"] for row in _of_jsonl(lines)}
    if not (texts.is_file() and clips.is_file()):
        return {}
    said, named = ([line for line in plain_text.read(p).split("\n") if line.strip()] for p in (texts, clips))
    if len(said) != len(named):
        raise UserError(f"{texts} has {len(said)} lines and {clips} {len(named)}: give a caption for each video")
    return {folder / name.strip(): text for name, text in zip(named, said, strict=True)}


def _of_jsonl(path: Path) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(plain_text.read(path).split("\n"), 1):
        if not line.strip():
            continue
        row = _json(line, f"{path} line {number}")
        ours = columns.renamed(row, f"{path} line {number}")
        yield {ours.get(name, name): value for name, value in row.items()}


def _beside(files: list[Path]) -> Any:
    """The caption in the files beside a clip: the .txt, or else the .json."""
    if not files:
        return ""
    if files[0].suffix == ".txt":
        return plain_text.decode(files[0].read_bytes())
    row = _json(plain_text.decode(files[0].read_bytes()), f"in {files[0]}")
    names = [name for name in ("text", *columns.ALIASES["text"]) if name in row]
    if len(names) != 1:
        raise UserError(f"in {files[0]} is under none, or several, of text, {', '.join(columns.ALIASES['text'])}")
    return row[names[0]]


def _json(text: str, where: str) -> dict[str, Any]:
    try:
        return json_file.parse(text)
    except ValueError as error:
        raise UserError(f"{where} is not a JSON object ({error}): mend it") from error
