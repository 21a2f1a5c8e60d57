"""The steps of curation from config keys, one by one or all in a row."""

import importlib
import importlib.util
import json
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from osjax import atomic
from osjax.curation import caption, cut, engine, raw, score, stats, tables
from osjax.curation import filter as filtering
from osjax.curation.isolate import Limits, Pool
from osjax.errors import UserError
from osjax.run.config import to_dataclass

JUDGES = {"aesthetic": "osjax.run.aesthetic"}  # metrics by models -> modules whose `of_config` makes the model
ORDER = ("probe", "cut", "score", "filter", "caption", "stats")


def run_step(cfg, name: str, source: Path, out: Path, root: str | None = None) -> str:
    """Run one step; lines that say what became of the clips."""
    if name == "stats":
        return _page(cfg, source, out, root)
    outcome, counts = _worked(cfg, name, source, out, root)
    if name != "filter":
        return _line(name, outcome, out)
    _write_counts(out.with_suffix(".pyramid.json"), counts)
    return "\n".join([_line(name, outcome, out), *_lines(counts)])


def run_all(cfg) -> None:
    """The config's steps, from `source` to tables `1-probe.parquet`, ... in the folder `out`.

    What is left goes to `clips.parquet` and `clips.csv`, all that was dropped, with stage and reason, to
    `dropped.parquet`, the counts of every stage to `pyramid.json`. Steps that are done are not done again.
    """
    if not cfg.source or not cfg.out:
        raise UserError("no source or out: give --config.source=FOLDER_OR_TABLE and --config.out=FOLDER", status=2)
    unknown = [name for name in cfg.steps if name not in ORDER]
    if unknown:
        raise UserError(f"unknown step {', '.join(unknown)} in config.steps: choose from {', '.join(ORDER)}", status=2)
    folder, source, root = Path(cfg.out), Path(cfg.source), cfg.root
    if not root:  # clips stay where they are until `cut` writes new ones below `out`
        root = str(source if source.is_dir() else source.parent)
    pyramid: list[filtering.Count] = []
    dropped: list[Path] = []
    for number, name in enumerate(cfg.steps, 1):
        if name == "stats":
            print(_page(cfg, source, folder / f"{number}-stats.html", root, pyramid))
            continue
        out = folder / f"{number}-{name}.parquet"
        outcome, counts = _worked(cfg, name, source, out, root)
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


def _worked(cfg, name: str, source: Path, out: Path, root: str | None) -> tuple[engine.Outcome, list[filtering.Count]]:
    """What a step that writes a table made, in all and by stages."""
    if name == "filter":
        return filtering.run(source, out, _filtering(cfg), root)
    step, limits = _step(cfg, name, out), to_dataclass(Limits, cfg.limits, "limits")
    outcome = engine.run(step, source, out, root=root, limits=limits, beam_options=_beam(cfg))
    return outcome, [filtering.Count(name, outcome.kept, outcome.dropped)]


def _page(cfg, source: Path, out: Path, root: str | None, pyramid: Sequence[filtering.Count] = ()) -> str:
    with Pool(to_dataclass(Limits, cfg.limits, "limits")) as pool:
        count = stats.run(source, out, pool, cfg.stats.examples, root, pyramid)
    return f"stats: {count} clips in {out}"


def _step(cfg, name: str, out: Path) -> engine.Step:
    if name == "probe":
        rules = to_dataclass(raw.Rules, cfg.probe, "probe")
        return engine.Step(name, partial(raw.work, rules=rules), rules, cfg.shard)
    if name == "cut":
        options, folder = to_dataclass(cut.Cutting, cfg.cut, "cut"), str(out.with_suffix(".clips").absolute())
        work = partial(cut.work, options=options, folder=folder)
        return engine.Step(name, work, [vars(options), folder], min(cfg.shard, 16))
    if name == "score":
        options = to_dataclass(score.Scoring, cfg.score, "score")
        options.check()
        judges = {metric: _judge(metric, cfg) for metric in options.chosen(score.Judged)}
        work = partial(score.work, options=options, judges=judges)
        depends_on = [vars(options), *(judge.fingerprint() for judge in judges.values())] if judges else options
        return engine.Step(name, work, depends_on, cfg.shard)
    if not cfg.caption.url or not cfg.caption.model:
        raise UserError("no caption server: give --config.caption.url=http://... and --config.caption.model", status=2)
    options = to_dataclass(caption.Captioning, cfg.caption, "caption")
    return engine.Step(name, partial(caption.work, options=options), options, 2 * options.parallel)


def _judge(metric: str, cfg) -> score.Judge:
    """The model behind a metric, from the group of keys that has its name; imported here, for only it needs jax."""
    return importlib.import_module(JUDGES[metric]).of_config(cfg[metric])


def _filtering(cfg) -> filtering.Filtering:
    unknown = [name for name in cfg.filter.order if name not in cfg.filter]
    if unknown:
        raise UserError(f"config.filter.order names {', '.join(unknown)}, which config.filter does not have", status=2)
    stages = [filtering.Stage(name, cfg.filter[name].min, cfg.filter[name].max) for name in cfg.filter.order]
    stages = [stage for stage in stages if (stage.min, stage.max) != (None, None)]
    return filtering.Filtering(tuple(stages), cfg.filter.duplicates)


def _beam(cfg) -> list[str] | None:
    there = importlib.util.find_spec("apache_beam") is not None
    if cfg.engine not in ("auto", "beam", "loop"):
        raise UserError(f"engine {cfg.engine!r}: choose from auto, beam, loop", status=2)
    if cfg.engine == "loop" or (cfg.engine == "auto" and not there):
        if cfg.beam:
            raise UserError("config.beam needs Apache Beam: pip install 'osjax[beam]', and not engine loop", status=2)
        return None
    return shlex.split(cfg.beam)


def _line(name: str, outcome: engine.Outcome, out: Path) -> str:
    line = f"{name}: {outcome.kept} clips kept, {outcome.dropped} dropped; {out}"
    return line + (f", reasons in {outcome.dropped_table}" if outcome.dropped_table else "")


def _lines(counts: Sequence[filtering.Count]) -> list[str]:
    return [f"  {c.stage:<16} kept {c.kept:>9}  dropped {c.dropped:>9}" for c in counts]


def _write_counts(out: Path, counts: Sequence[filtering.Count]) -> None:
    atomic.write_text(out, json.dumps([vars(count) for count in counts], indent=1))
