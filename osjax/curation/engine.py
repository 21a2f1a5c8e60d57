"""Runs a step over a table in shards, each written when it is done: a run that is killed goes on where it stood.

Beside OUT lies `OUT.work/<fingerprint>/`: `in/` holds the rows to work on, `out/` the finished shards, `done.json` what
became of all. The fingerprint is that of the step, its options and its input; another one starts anew, the same one
finds its finished shards, and does nothing where OUT is as it left it.
"""

import dataclasses
import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from osjax import atomic, json_file, lock
from osjax.curation import tables
from osjax.curation.isolate import Limits, Pool
from osjax.curation.tables import Row
from osjax.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """One step of curation.

    name:    of the step, for `stage` of the rows it drops.
    work:    (rows, pool) -> rows; those with a `reason` are dropped. Must be picklable for runners elsewhere.
    options: what the result depends on beside the input; part of the fingerprint.
    shard:   rows that are worked on, and lost in a kill, together.
    """

    name: str
    work: Callable[[Sequence[Row], Pool], list[Row]]
    options: Any = None
    shard: int = 64


@dataclass(frozen=True)
class Outcome:
    """Clips kept and dropped by a step, and the table of the dropped (None without any)."""

    kept: int
    dropped: int
    dropped_table: Path | None


def run(
    step: Step,
    source: Path | str,
    out: Path | str,
    *,
    root: Path | str | None = None,
    limits: Limits | None = None,
    beam_options: Sequence[str] | None = None,
) -> Outcome:
    """Work `source`, a folder or a table, through `step` into the table `out` and OUT.dropped beside it.

    out: a .parquet or .csv file. root: the folder that clips must lie in. limits: of one clip. beam_options: None runs
    the shards in a plain loop; a list goes to Apache Beam, where () is its in-process runner. UserError for bad input,
    or when the machine fails.
    """
    out = Path(out)
    if out.suffix not in (".csv", ".parquet"):
        raise UserError(f"{out} is neither .csv nor .parquet: name the table to write, such as clips.parquet", status=2)
    with lock.held(out.with_suffix(".work"), f"osjax data {step.name}"):
        return _run(step, source, out, root, limits or Limits(), beam_options)


def _run(
    step: Step,
    source: Path | str,
    out: Path,
    root: Path | str | None,
    limits: Limits,
    beam_options: Sequence[str] | None,
) -> Outcome:
    work = out.with_suffix(".work") / fingerprint(step, source, root)
    dropped_table = out.with_suffix(f".dropped{out.suffix}")
    before = _done(work, out, dropped_table)
    if before is not None:
        return before
    names = _prepare(step, source, root, work)
    left = [name for name in names if not (work / "out" / name).exists()]
    if len(left) < len(names):
        log.info("%s: %d of %d shards are done already", step.name, len(names) - len(left), len(names))
    if left and beam_options is None:
        _loop(step, work, left, limits)
    elif left:
        from osjax.curation import beam

        beam.run(step, work.absolute(), left, limits, beam_options)  # workers have folders of their own
    parts = [work / "out" / name for name in names]
    dropped = tables.merge(dropped_table, parts, kept=False)
    kept = tables.merge(out, parts, kept=True)
    if not dropped:
        dropped_table.unlink()  # an empty one that was written a line above
    made = {"kept": kept, "dropped": dropped, "files": _state([out, dropped_table])}
    atomic.write_text(work / "done.json", json.dumps(made))
    return Outcome(kept, dropped, dropped_table if dropped else None)


def _done(work: Path, out: Path, dropped_table: Path) -> Outcome | None:
    """What a step made of all its shards, None when it did not, or when its tables are not as it left them."""
    listing = work / "done.json"
    try:
        done = json_file.read(listing, "the step is done again", ("kept", "dropped")) if listing.exists() else {}
    except UserError as error:
        log.warning("%s", error)
        done = {}
    if done.get("files") != _state([out, dropped_table]):
        return None
    return Outcome(done["kept"], done["dropped"], dropped_table if done["dropped"] else None)


def _state(files: Iterable[Path]) -> list[list[Any]]:
    return [[str(p), p.stat().st_size, p.stat().st_mtime_ns] for p in files if p.is_file()]


def fingerprint(step: Step, source: Path | str, root: Path | str | None) -> str:
    """A name for the step, its options and the state of its input: 16 hex digits.

    source: folder or table; UserError where it does not exist. root: see `run`.
    """
    source = Path(source)
    if not source.exists():
        raise UserError(f"{source} does not exist: give a folder of videos or a .csv or .parquet table")
    if source.is_dir():
        listed = (file for p in tables.videos(source) for file in (p, p.with_suffix(".txt")))
        files = _state(listed)
    else:  # by its rows: the step before may write the same ones again
        with source.open("rb") as file:
            files = hashlib.file_digest(file, "sha256").hexdigest()
    options = dataclasses.asdict(step.options) if dataclasses.is_dataclass(step.options) else step.options
    text = json.dumps([step.name, options, step.shard, str(root), str(source.resolve()), files], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _prepare(step: Step, source: Path | str, root: Path | str | None, work: Path) -> list[str]:
    """Write the input's shards and return their names; done once for a fingerprint."""
    listing = work / "shards.json"
    names = _listed(listing)
    if names is None:
        names = []
        for number, chunk in enumerate(tables.shards(tables.rows(source, root), step.shard)):
            names.append(f"{number:07d}.parquet")
            tables.write(work / "in" / names[-1], chunk)
        if not names:
            raise UserError(f"table {source} has no rows: list at least one clip")
        atomic.write_text(listing, json.dumps({"shards": names}))
    return names


def _listed(listing: Path) -> list[str] | None:
    """The shards that a listing names; None where there is none, or a damaged one: then they are written again."""
    if not listing.exists():
        return None
    try:
        names = json_file.read(listing, "the input is read again", ("shards",))["shards"]
        return names if all(re.fullmatch(r"\d+\.parquet", name) for name in names) else None
    except (UserError, TypeError) as error:
        log.warning("%s", error)
        return None


def _loop(step: Step, work: Path, names: Sequence[str], limits: Limits) -> None:
    from tqdm import tqdm

    with Pool(limits) as pool:
        for name in tqdm(names, desc=step.name, unit="shard", mininterval=1):
            shard(step, work, name, pool)


def shard(step: Step, work: Path, name: str, pool: Pool) -> None:
    """Work the shard called `name` through `step` and write it in one piece; a finished one is left as it is.

    work: folder of the run. pool: where clips are worked on.
    """
    done = work / "out" / name
    if not (work / "in").is_dir():
        raise UserError(f"{work} cannot be seen where clips are worked on: write to a folder that all machines share")
    if not done.exists():
        made = step.work(tables.read(work / "in" / name), pool)
        tables.write(done, [{**row, "stage": step.name} if row.get("reason") else row for row in made])
