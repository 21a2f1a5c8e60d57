"""The steps of curation from config keys."""

import importlib
import importlib.util
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from osjax.curation import caption, cut, engine, raw, score
from osjax.curation import filter as filtering
from osjax.curation.cut import Cutting
from osjax.curation.isolate import Limits
from osjax.curation.pyramid import ORDER, Steps
from osjax.curation.score import Scoring
from osjax.errors import UserError, usage
from osjax.parts.groups import group, refuse, refuse_all, to_dataclass

ENGINES = ("auto", "beam", "loop")
JUDGES = {"aesthetic": "osjax.parts.aesthetic"}  # scores by models: where `of_keys` makes the model
THRESHOLDS: Mapping[str, tuple[float | None, float | None]] = {  # column: what a clip must have at least and at most
    "motion": (0.3, 20.0),  # vmafmotion: stills below, chaos above
    "jitter": (None, 30.0),
    "blur": (20.0, None),  # blurred below
    "text_area": (None, None),  # fraction of the frame
    "aesthetic": (None, None),  # 1 to 10
}


@dataclass(frozen=True)
class AestheticKeys:
    """Local files of the score `aesthetic`."""

    clip: str | None = None  # folder of openai/clip-vit-large-patch14
    predictor: str | None = None  # sac+logos+ava1-l14-linearMSE.pth


@dataclass(frozen=True)
class Range:
    """What passes a stage of `filter`; none leaves a side open."""

    min: float | None = None
    max: float | None = None

    def __post_init__(self):
        if self.min is not None and self.max is not None and self.min > self.max:
            raise UserError(f"min {self.min} is above max {self.max}: nothing would pass")


@dataclass(frozen=True)
class StatsKeys:
    """The page of `osjax data stats`."""

    examples: int = 24  # clips that show a frame


@dataclass(frozen=True)
class CurationKeys:
    """What `osjax data` is told."""

    source: str | None = None  # of `data run`: a folder of videos, or a table
    out: str | None = None  # of `data run`: folder for tables, clips and the page
    root: str | None = None  # folder that the source's clips lie in; none: the source, or its table's folder
    steps: tuple[str, ...] = ("probe", "cut", "score", "filter", "stats")  # of `data run`; caption goes before stats
    shard: int = 64  # clips that are worked on, and lost in a kill, together
    engine: str = "auto"  # beam; loop: without Apache Beam; auto: beam where it is installed
    beam: str = ""  # Beam's options in one line, such as "--runner=FlinkRunner --flink_master=host:8081"
    limits: Limits = Limits()  # of one clip; what goes beyond is quarantined
    probe: raw.Rules = raw.Rules()
    cut: Cutting = Cutting()
    score: Scoring = Scoring()  # text_area needs osjax[ocr], aesthetic the files below
    aesthetic: AestheticKeys = AestheticKeys()
    filter: Mapping[str, Any] = field(default_factory=dict)  # order, duplicates, and a Range by column
    caption: Mapping[str, Any] = field(default_factory=dict)  # fields of Captioning
    stats: StatsKeys = StatsKeys()


def keys() -> ConfigDict:
    """The keys of curation as in the report, for config files to change.

    filter.order: columns, one stage each. filter.duplicates: bits of 192, at most 7, by which near-duplicates differ;
    none: keep all. caption.url: base of an OpenAI-compatible server; caption.model: as the server calls it.
    """
    cfg = group(CurationKeys)
    cfg.filter = ConfigDict({"order": tuple(THRESHOLDS)})
    for column, (least, most) in THRESHOLDS.items():
        cfg.filter[column] = group(Range)
        cfg.filter[column].min, cfg.filter[column].max = least, most
    cfg.filter.update(group(filtering.Filtering, but=("stages",)))
    cfg.caption = group(caption.Captioning, but=("prompt",))
    return cfg


@usage()
def of_config(cfg: ConfigDict, step: str | None = None) -> tuple[CurationKeys, Steps]:
    """The keys of a curation config and the steps that they describe.

    step: the one that is asked for; None: those of `steps`. UserError for what cannot work.
    """
    given = to_dataclass(CurationKeys, cfg, "")
    wanted = given.steps if step is None else (step,)
    unknown = [name for name in wanted if name not in ORDER]
    if unknown or not wanted:
        raise UserError(
            f"unknown step {', '.join(unknown) or '()'} in config.steps: choose from {', '.join(ORDER)}", status=2
        )
    if given.shard < 1 or given.stats.examples < 0:
        raise UserError(f"shard {given.shard} must be 1 or more, stats.examples {given.stats.examples} 0 or more")
    if "score" in wanted:
        for metric in JUDGES.keys() - set(given.score.metrics):
            refuse(getattr(given, metric), metric, (), f"{metric} is not in score.metrics")
    if step is None:
        _refuse_idle(given)
    elif given.source or given.out:
        raise UserError("config.source and config.out are of `data run`: this step names IN and OUT itself", status=2)
    makes = {
        "probe": partial(_probe, given),
        "cut": partial(_cut, given),
        "score": partial(_score, given),
        "caption": partial(_caption, given),
    }
    filters = _filtering(given) if "filter" in wanted else filtering.Filtering(())
    steps = Steps({n: make for n, make in makes.items() if n in wanted}, filters, given.limits, _beam(given))
    return given, steps


def _refuse_idle(given: CurationKeys) -> None:
    """UserError for keys of steps that are not taken."""
    defaults = keys()
    for name in ORDER:
        value = getattr(given, name)
        if name in given.steps:
            continue
        if isinstance(value, Mapping):
            refuse_all(value, defaults[name], name, f"{name} is not in config.steps")
        else:
            refuse(value, name, (), f"{name} is not in config.steps")
    if "score" not in given.steps:
        refuse(given.aesthetic, "aesthetic", (), "score is not in config.steps")


def _probe(given: CurationKeys, out: Path) -> engine.Step:
    return engine.Step("probe", partial(raw.work, rules=given.probe), given.probe, given.shard)


def _cut(given: CurationKeys, out: Path) -> engine.Step:
    folder = str(out.with_suffix(".clips").absolute())
    work = partial(cut.work, options=given.cut, folder=folder)
    return engine.Step("cut", work, [vars(given.cut), folder], min(given.shard, 16))


def _score(given: CurationKeys, out: Path) -> engine.Step:
    options = given.score
    options.check()
    # A judge's module is imported here, for it alone needs jax.
    judges = {
        metric: importlib.import_module(JUDGES[metric]).of_keys(getattr(given, metric))
        for metric in options.chosen(score.Judged)
    }
    work = partial(score.work, options=options, judges=judges)
    depends_on = [vars(options), *(judge.fingerprint() for judge in judges.values())] if judges else options
    return engine.Step("score", work, depends_on, given.shard)


def _caption(given: CurationKeys, out: Path) -> engine.Step:
    if not given.caption.get("url") or not given.caption.get("model"):
        raise UserError("no caption server: give --config.caption.url=http://... and --config.caption.model", status=2)
    options = to_dataclass(caption.Captioning, given.caption, "caption")
    return engine.Step("caption", partial(caption.work, options=options), options, 2 * options.parallel)


def _filtering(given: CurationKeys) -> filtering.Filtering:
    ranges = {name: value for name, value in given.filter.items() if name not in ("order", "duplicates")}
    order = tuple(given.filter["order"])
    unknown = [name for name in order if name not in ranges]
    if unknown:
        raise UserError(f"config.filter.order names {', '.join(unknown)}, which config.filter does not have", status=2)
    bounds = {name: to_dataclass(Range, value, f"filter.{name}") for name, value in ranges.items()}
    for name in bounds.keys() - set(order):
        least, most = THRESHOLDS.get(name, (None, None))
        refuse(bounds[name], f"filter.{name}", (), f"{name} is not in filter.order", min=least, max=most)
    stages = [filtering.Stage(name, bounds[name].min, bounds[name].max) for name in order]
    stages = [stage for stage in stages if (stage.min, stage.max) != (None, None)]
    return filtering.Filtering(tuple(stages), given.filter["duplicates"])


def _beam(given: CurationKeys) -> list[str] | None:
    there = importlib.util.find_spec("apache_beam") is not None
    if given.engine not in ENGINES:
        raise UserError(f"engine {given.engine!r}: choose from {', '.join(ENGINES)}", status=2)
    if given.engine == "loop" or (given.engine == "auto" and not there):
        if given.beam:
            raise UserError("config.beam needs Apache Beam: pip install 'osjax[beam]', and not engine loop", status=2)
        return None
    return shlex.split(given.beam)
