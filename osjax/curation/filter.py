"""Thresholds on scores, one stage after the other, with the clips kept and dropped at each: the data pyramid.

Source: Open-Sora 2.0 report, section 2 and figure 2. It calls its thresholds configurable and does not state them.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from osjax.curation import duplicates, engine, tables
from osjax.curation.isolate import Pool
from osjax.curation.tables import Row
from osjax.errors import UserError

DUPLICATE = "duplicate"
ROW = "row"  # where a row fails that cannot be judged


@dataclass(frozen=True)
class Stage:
    """Rows whose `column` lies in [min, max] pass; None leaves that side open. A row without a value is dropped."""

    column: str
    min: float | None = None
    max: float | None = None


@dataclass(frozen=True)
class Filtering:
    """The stages of the filter, in their order, and what counts as a near-duplicate.

    duplicates: bits of 192, at most 7, in which the hashes of near-duplicates may differ; None: keep all.
    """

    stages: tuple[Stage, ...] = ()
    duplicates: int | None = 7

    def __post_init__(self):
        if self.duplicates is not None and not 0 <= self.duplicates <= duplicates.MOST:
            raise UserError(f"duplicates is {self.duplicates}: give bits from 0 to {duplicates.MOST}, or none")


@dataclass(frozen=True)
class Count:
    """Clips that a stage kept and dropped."""

    stage: str
    kept: int
    dropped: int


def run(
    source: Path | str, out: Path | str, options: Filtering, root: Path | str | None = None
) -> tuple[engine.Outcome, list[Count]]:
    """Filter the table `source` into `out`; what is dropped goes to the table of the dropped with stage and reason.

    Returns what became of the clips, in all and by stages. options: thresholds; UserError for columns that are not
    there. root: the folder that clips must lie in.
    """
    _has_columns(source, options)
    twins = {}
    if options.duplicates is not None:
        clips = [(row["path"], row["hash"]) for row in tables.rows(source, root) if _hashed(row)]
        twins = duplicates.find(*zip(*clips, strict=True), options.duplicates) if clips else {}
    step = engine.Step("filter", partial(work, options=options, twins=twins), options, shard=1024)
    outcome = engine.run(step, source, out, root=root)
    failed: Counter = Counter()
    if outcome.dropped_table:
        failed.update(row["failed"] for row in tables.rows(outcome.dropped_table, root or "/"))
    return outcome, counts(failed, outcome.kept + outcome.dropped, options)


def _has_columns(source: Path | str, options: Filtering) -> None:
    first = next(tables.rows(source, "/"), None)
    if first is None:
        raise UserError(f"table {source} has no rows: look at why the step before dropped all clips")
    wanted = [stage.column for stage in options.stages] + (["hash"] if options.duplicates is not None else [])
    missing = [name for name in wanted if name not in first]
    if missing:
        raise UserError(
            f"{source} has no column {', '.join(missing)}: run `osjax data score` for it, or set its thresholds to none"
        )


def _hashed(row: Row) -> bool:
    return re.fullmatch(f"[0-9a-f]{{{2 * duplicates.BYTES}}}", str(row.get("hash") or "")) is not None


def work(rows: Sequence[Row], pool: Pool, options: Filtering, twins: Mapping[str, str]) -> list[Row]:
    """Rows, those that fail with a `reason` and the name of the stage they `failed`.

    rows: scored. pool: not needed. options: thresholds. twins: {path: path of the clip that it repeats}.
    """
    return [judge(row, options, twins) for row in rows]


def judge(row: Row, options: Filtering, twins: Mapping[str, str]) -> Row:
    """The row, with `reason` and `failed` when a stage drops it: the first that does. options, twins: see `work`."""
    if row.get("reason"):
        return {**row, "failed": ROW}
    for stage in options.stages:
        value = row.get(stage.column)
        if value is None or value == "":
            return {**row, "failed": stage.column, "reason": f"{stage.column} was not measured"}
        try:
            value = float(value)
        except (ValueError, TypeError):
            return {**row, "failed": stage.column, "reason": f"{stage.column} is {value!r}, not a number"}
        if stage.min is not None and not value >= stage.min:
            return {**row, "failed": stage.column, "reason": f"{stage.column} {value:.4g} below {stage.min:g}"}
        if stage.max is not None and not value <= stage.max:
            return {**row, "failed": stage.column, "reason": f"{stage.column} {value:.4g} above {stage.max:g}"}
    if row["path"] in twins:
        return {**row, "failed": DUPLICATE, "reason": f"near-duplicate of {twins[row['path']]}"}
    return row


def counts(failed: Mapping[str, int], total: int, options: Filtering) -> list[Count]:
    """Clips kept and dropped stage by stage. failed: how many at each. total: clips before the first stage.

    options: the stages.
    """
    names = [stage.column for stage in options.stages] + ([DUPLICATE] if options.duplicates is not None else [])
    out = []
    total -= failed.get(ROW, 0)
    for name in names:
        total -= failed.get(name, 0)
        out.append(Count(name, total, failed.get(name, 0)))
    return out
