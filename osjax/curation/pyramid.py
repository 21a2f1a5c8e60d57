"""The steps of curation one by one, or all in a row: the pyramid from raw videos to clips."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from osjax import atomic, lock
from osjax.curation import engine, tables
from osjax.curation import filter as filtering
from osjax.curation.isolate import Limits
from osjax.errors import UserError

ORDER = ("probe", "cut", "score", "filter", "caption", "stats")
Page = Callable[[Path, Path, str | None, Sequence[filtering.Count]], int]


@dataclass(frozen=True)
class Steps:
    """How each step is done.

    make: by name, makes the step whose table goes to a path. filtering: the filter's stages. limits: of one clip. beam:
    Apache Beam's options; None: without it.
    """

    make: Mapping[str, Callable[[Path], engine.Step]]
    filtering: filtering.Filtering
    limits: Limits
    beam: list[str] | None


def run_step(steps: Steps, name: str, source: Path, out: Path, root: str | None = None) -> str:
    """Run one step that writes a table; lines that say what became of the clips.

    name: of the step. source: a table or a folder. out: the table to write. root: the folder that all clips lie in.
    """
    outcome, counts = _worked(steps, name, source, out, root)
    if name != "filter":
        return _line(name, outcome, out)
    _write_counts(out.with_suffix(".pyramid.json"), counts)
    return "\n".join([_line(name, outcome, out), *_lines(counts)])


def run_all(steps: Steps, names: Sequence[str], source: Path, folder: Path, root: str | None, page: Page) -> None:
    """Run steps in a row, from `source` to tables `1-probe.parquet`, ... in a folder.

    What is left goes to `clips.parquet` and `clips.csv`, all that was dropped, with stage and reason, to
    `dropped.parquet`, the counts of every stage to `pyramid.json`. Steps that are done are not done again.

    names: of the steps. root: the folder that the source's clips lie in; None: the source, or its table's folder.
    page: writes the page of `stats` from (table, page, root, counts) and says of how many clips.
    UserError, status 2, while another process writes to the folder.
    """
    with lock.held(folder, "osjax data run"):
        _run_all(steps, names, source, folder, root, page)


def _run_all(steps: Steps, names: Sequence[str], source: Path, folder: Path, root: str | None, page: Page) -> None:
    root = root or str(source if source.is_dir() else source.parent)  # until `cut` writes new ones
    pyramid: list[filtering.Count] = []
    dropped: list[Path] = []
    for number, name in enumerate(names, 1):
        if name == "stats":
            out = folder / f"{number}-stats.html"
            print(f"stats: {page(source, out, root, pyramid)} clips in {out}")
            continue
        out = folder / f"{number}-{name}.parquet"
        outcome, counts = _worked(steps, name, source, out, root)
        print(_line(name, outcome, out))
        pyramid += counts
        dropped += [outcome.dropped_table] if outcome.dropped_table else []
        _write_counts(folder / "pyramid.json", pyramid)
        if dropped:
            tables.merge(folder / "dropped.parquet", dropped, kept=False)
        if not outcome.kept:
            raise UserError(f"{name} left no clip: {folder / 'dropped.parquet'} has the reasons")
        root = str(folder) if name == "cut" else root
        source = out
    left = list(tables.rows(source, root))
    tables.write(folder / "clips.parquet", left)
    tables.write(folder / "clips.csv", left)
    print("\n".join(_lines(pyramid)))
    print(f"{len(left)} clips: {folder / 'clips.parquet'} and clips.csv")


def _worked(
    steps: Steps, name: str, source: Path, out: Path, root: str | None
) -> tuple[engine.Outcome, list[filtering.Count]]:
    """What a step that writes a table made, in all and by stages."""
    if name == "filter":
        return filtering.run(source, out, steps.filtering, root)
    step = steps.make[name](out)
    outcome = engine.run(step, source, out, root=root, limits=steps.limits, beam_options=steps.beam)
    return outcome, [filtering.Count(name, outcome.kept, outcome.dropped)]


def _line(name: str, outcome: engine.Outcome, out: Path) -> str:
    line = f"{name}: {outcome.kept} clips kept, {outcome.dropped} dropped; {out}"
    return line + (f", reasons in {outcome.dropped_table}" if outcome.dropped_table else "")


def _lines(counts: Sequence[filtering.Count]) -> list[str]:
    return [f"  {c.stage:<16} kept {c.kept:>9}  dropped {c.dropped:>9}" for c in counts]


def _write_counts(out: Path, counts: Sequence[filtering.Count]) -> None:
    atomic.write_text(out, json.dumps([vars(count) for count in counts], indent=1))
