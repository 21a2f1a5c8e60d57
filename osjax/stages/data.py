"""The data of a training run: data sets on disk or procedural clips, and batches of them by buckets."""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from osjax import atomic, json_file
from osjax.curation import tables
from osjax.curation.probe import look
from osjax.data import bucketed, buckets, clips, dataset, index, left_out, loader, part, schedule
from osjax.errors import UserError
from osjax.parts.clips import ClipSet
from osjax.parts.data import DataKeys
from osjax.types import Json, Row

log = logging.getLogger(__name__)
Source = Sequence[Row]
DONE = "done.json"


class Batches(Iterator, Protocol):
    """Batches of rows whose place can be saved and set."""

    def get_state(self) -> Json: ...

    def set_state(self, state: Json) -> None: ...


@dataclass(frozen=True)
class Mapped:
    """Batches of another iterator, each changed by `change`."""

    batches: Batches
    change: Callable[[Any], Any]

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self.change(next(self.batches))

    def get_state(self) -> Json:
        return self.batches.get_state()

    def set_state(self, state: Json) -> None:
        self.batches.set_state(state)


class SomeImages:
    """Batches {"video", ...} of another iterator, a share of them cut to their first frames: batches of images.

    Which ones they are is a pure function of (seed, number of the batch), so every host cuts the same.
    """

    def __init__(self, batches: Batches, ratio: float, seed: int):
        self.batches, self.ratio, self.seed, self.count = batches, ratio, seed, 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Row:
        batch = next(self.batches)
        cut = np.random.default_rng((self.seed, self.count)).random() < self.ratio
        self.count += 1
        return {**batch, "video": batch["video"][:, :1]} if cut else batch

    def get_state(self) -> Json:
        return {"count": self.count, "batches": self.batches.get_state()}

    def set_state(self, state: Json) -> None:
        self.count = state["count"]
        self.batches.set_state(state["batches"])


class Unrendered(Sequence):
    """Procedural clips that are not made yet: how many there will be, and of what size, but no records."""

    own = True

    def __init__(self, count: int, cfg: ClipSet):
        self.count, self.cfg = count, cfg

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, at: int) -> dict[str, Any]:
        raise LookupError("clips that are not rendered yet have no records")

    def index(self) -> np.ndarray:
        """As `dataset.Records.index` gives it of clips that are there."""
        one = self.cfg.frames, self.cfg.size, self.cfg.size, self.cfg.fps
        return np.full(self.count, np.array(one, index.ENTRY))


class OwnData:
    """What a run has for the stages that name no data: a data set, or procedural clips.

    Of the clips there are training ones, and held-out ones of combinations that training never shows. renders: whether
    those that are not there are made; else they are `Unrendered`.
    """

    def __init__(self, source: str | None, cfg: ClipSet, workdir: Path, renders: bool = True):
        self.source, self.cfg, self.folder, self.renders = source, cfg, workdir / "data", renders
        self.combinations, held_out = clips.split(cfg.seed)
        self.held_out = clips.specs(cfg.held_out, cfg.seed + 1, held_out)

    def path(self, name: str) -> Path:
        """The data set of the `train` or `held_out` clips; made when it is not there yet."""
        if name == "held_out":
            return self._made(name, self.held_out)
        return self._made(name, clips.specs(self.cfg.train, self.cfg.seed, self.combinations))

    def open(self, name: str) -> Source:
        """The records of the `train` or `held_out` clips."""
        if self.renders or (self.folder / name / DONE).exists():
            return dataset.open_source(self.path(name), own=True)
        return Unrendered(len(self.held_out) if name == "held_out" else self.cfg.train, self.cfg)

    def _made(self, name: str, specs: Sequence[clips.ClipSpec]) -> Path:
        cfg, folder = self.cfg, self.folder / name
        done = folder / DONE  # written last; holds what the data was made from
        made_from = {"clips": len(specs), "frames": cfg.frames, "size": cfg.size, "fps": cfg.fps, "seed": cfg.seed}
        made_from["drawing"] = clips.DRAWING
        told = None
        if done.exists():
            try:
                told = json_file.read(done, "the clips are made again", ("made_from", "data_set"))
            except UserError as error:
                log.warning("%s", error)
        if told:
            if told["made_from"] != made_from:
                raise UserError(f"{folder} was made with other settings of config.clips: use another --config.workdir")
            return tables.inside(folder / str(told["data_set"]), folder, f"delete {folder}")
        table = clips.write_clips(folder / "mp4", specs, cfg.size, cfg.frames, cfg.fps)
        rows = [look(row)[0] for row in tables.rows(table)]  # in this process: it drew them itself
        path = dataset.build_clips(rows, folder)
        atomic.write_text(done, json.dumps({"made_from": made_from, "data_set": str(path.relative_to(folder))}))
        return path


def training_source(cfg: DataKeys, own: OwnData, key: str = "data") -> Source:
    """The data set that a stage's `data` group names, or the run's own. key: the group's dotted name.

    Without the share of it that the group keeps for evaluation.
    """
    if cfg.held_out_share:
        return part.split(whole_source(cfg, own, key), cfg.held_out_share)[0]
    return whole_source(cfg, own, key)


def whole_source(cfg: DataKeys, own: OwnData, key: str = "data") -> Source:
    """As `training_source`, with the share that is kept for evaluation. cfg, own, key: as it takes them."""
    if cfg.source or own.source:
        return dataset.open_source(cfg.source or own.source)
    if not own.cfg.train:
        raise UserError(f"no {key}.source, a data set of `osjax data build`", status=2)
    return own.open("train")


def identity(source: Source) -> Json:
    """What tells a data set from others, as `lineage.of_stage` names it. source: of all its clips."""
    told: Json = {"clips": len(source)}
    return {**told, "data_set": source.identity()} if isinstance(source, dataset.Records) else told


def held_out_source(cfg: DataKeys, own: OwnData, key: str = "data") -> Source:
    """The data set that a stage is evaluated on: the one that it names, a share of its own, or the run's own clips."""
    if cfg.held_out:
        return dataset.open_source(cfg.held_out)
    if cfg.held_out_share:
        return part.split(whole_source(cfg, own, key), cfg.held_out_share)[1]
    check_held_out(cfg, own, key)
    return own.open("held_out")


def check_held_out(cfg: DataKeys, own: OwnData, key: str = "data") -> None:
    """UserError where a stage has nothing to be evaluated on. cfg: its `data` group, called `key`. own: of the run."""
    if not (cfg.held_out or cfg.held_out_share or own.cfg.held_out):
        raise UserError(
            f"nothing to evaluate on: give {key}.held_out, or {key}.held_out_share=0.05, or set evaluate.every to 0 "
            "(evaluate.sample_every shows samples of evaluate.prompts without)",
            status=2,
        )


def plan(source: Source, table: buckets.Buckets, seed: int, settled: bool = False, fill: bool = False) -> schedule.Plan:
    """Which clips every step trains on. `clip_table` tells of training clips, `warn_left_out` of others.

    source: records of the clips. table: the buckets and their batch sizes. seed: of the orders and draws. settled:
    clips keep the buckets of the first pass, instead of drawing them anew in each. fill: batches that their clips do
    not fill take some of them again. UserError where no bucket fills a batch.
    """
    grouped = index.group(source.index(), table, seed)
    sizes = {bucket: table.batch_size(bucket) for bucket in grouped.possible}
    return schedule.Plan(grouped.members, sizes, seed, settled=settled or not grouped.drawing, fill=fill)


def warn_left_out(source: Source, table: buckets.Buckets, cfg: DataKeys, seed: int, which: str) -> None:
    """Warn of the clips of a source that its first pass leaves out, with why: of clips that no table tells of.

    source, table, seed: as `plan` takes them. cfg: the stage's `data` group. which: clips these are, such as held-out.
    """
    planned, entries = plan(source, table, seed, fill=cfg.fill), source.index()
    out = left_out.reasons(entries, table, planned.pass_of(0), planned.batch_sizes)
    if out:
        whys = "; ".join(f"{len(places)} {reason}" for reason, places in out.items())
        log.warning("%d of %d %s clips are left out: %s", sum(map(len, out.values())), len(entries), which, whys)


def check_batches(
    source_of: Callable[[DataKeys, OwnData], Source], table: buckets.Buckets, cfg: DataKeys, own: OwnData, seed: int
) -> None:
    """UserError where a source makes no batch: its plan is made, and the clips of the first batch are decoded.

    source_of: `training_source` or `held_out_source`. cfg: the stage's `data` group, for it. table, seed: of the plan.
    own: the run's data; its clips are not rendered for this.
    """
    source = source_of(cfg, OwnData(own.source, own.cfg, own.folder.parent, renders=False))
    planned = plan(source, table, seed, fill=cfg.fill)
    if isinstance(getattr(source, "source", source), Unrendered):
        return
    first = planned.batch(0)
    reader = loader.ClipReader(source, _window(table, first.bucket, cfg), readers(cfg, source).of(source))
    for at in first.indices[jax.process_index() :: jax.process_count()]:
        reader(at, np.random.default_rng((seed, 0, at)), first.members)


def _window(table: buckets.Buckets, bucket: buckets.Bucket, cfg: DataKeys) -> loader.Window:
    stated = {"state_fps": cfg.state_fps, "state_motion": cfg.state_motion}
    options = {"fps_max": table.fps_max, "random_start": cfg.random_start, "exact": cfg.exact_resize, **stated}
    return loader.Window(*table.shape(bucket), **options)


def video_batches(source: Source, table: buckets.Buckets, cfg: DataKeys, seed: int) -> Batches:
    """Endless batches {"video" levels (B, T, H, W, 3), "text"} of this process, as the plan of the source says.

    source, table, seed: as `plan` takes them. cfg: who reads and what captions say. UserError as for `plan`.
    """
    planned = plan(source, table, seed, fill=cfg.fill)
    return bucketed.batches(
        source,
        planned,
        {bucket: _window(table, bucket, cfg) for bucket in planned.buckets},
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        readers=readers(cfg, source),
    )


def readers(cfg: DataKeys, source: Source) -> bucketed.Readers:
    """Who reads batches, and how far ahead. cfg: the `data` group. source: the records that it is for."""
    workers, own = cfg.workers, getattr(source, "own", False)
    if workers is None:
        workers = 0 if own else cfg.threads
        if workers and not cfg.features:
            log.info(
                "%d processes read the clips, as a data set may hold files that end or stop a decoder (data.workers=0: "
                "%d threads of this process)",
                workers,
                cfg.threads,
            )
    return bucketed.Readers(cfg.threads, workers, cfg.timeout_s, cfg.ahead_gb)
