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
from osjax.curation.probe import probe
from osjax.data import bucketed, buckets, clips, dataset, index, loader, schedule
from osjax.errors import UserError
from osjax.parts.clips import ClipSet
from osjax.parts.data import DataKeys

log = logging.getLogger(__name__)
Source = Sequence[dict[str, Any]]


class Batches(Iterator, Protocol):
    """Batches of rows whose place can be saved and set."""

    def get_state(self) -> dict[str, Any]: ...

    def set_state(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Mapped:
    """Batches of another iterator, each changed by `change`."""

    batches: Batches
    change: Callable[[Any], Any]

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self.change(next(self.batches))

    def get_state(self) -> dict[str, Any]:
        return self.batches.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        self.batches.set_state(state)


class SomeImages:
    """Batches {"video", ...} of another iterator, a share of them cut to their first frames: batches of images.

    Which ones they are is a pure function of (seed, number of the batch), so every host cuts the same.
    """

    def __init__(self, batches: Batches, ratio: float, seed: int):
        self.batches, self.ratio, self.seed, self.count = batches, ratio, seed, 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> dict[str, Any]:
        batch = next(self.batches)
        cut = np.random.default_rng((self.seed, self.count)).random() < self.ratio
        self.count += 1
        return {**batch, "video": batch["video"][:, :1]} if cut else batch

    def get_state(self) -> dict[str, Any]:
        return {"count": self.count, "batches": self.batches.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        self.count = state["count"]
        self.batches.set_state(state["batches"])


class OwnData:
    """What a run has for the stages that name no data: a data set, or procedural clips.

    Of the clips there are training ones, and held-out ones of combinations that training never shows.
    """

    def __init__(self, source: str | None, cfg: ClipSet, workdir: Path):
        self.source, self.cfg, self.folder = source, cfg, workdir / "data"
        self.combinations, held_out = clips.split(cfg.seed)
        self.held_out = clips.specs(cfg.held_out, cfg.seed + 1, held_out)

    def path(self, name: str) -> Path:
        """The data set of the `train` or `held_out` clips; made when it is not there yet."""
        if name == "held_out":
            return self._made(name, self.held_out)
        return self._made(name, clips.specs(self.cfg.train, self.cfg.seed, self.combinations))

    def _made(self, name: str, specs: Sequence[clips.ClipSpec]) -> Path:
        cfg, folder = self.cfg, self.folder / name
        done = folder / "done.json"  # written last; holds what the data was made from
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
            return folder / str(told["data_set"])
        table = clips.write_clips(folder / "mp4", specs, cfg.size, cfg.frames, cfg.fps)
        kept = probe(table, min_frames=cfg.frames).kept
        path = dataset.build_clips(kept, folder)
        atomic.write_text(done, json.dumps({"made_from": made_from, "data_set": str(path.relative_to(folder))}))
        return path


def training_source(cfg: DataKeys, own: OwnData, key: str = "data") -> Source:
    """The data set that a stage's `data` group names, or the run's own. key: the group's dotted name."""
    if cfg.source or own.source:
        return dataset.open_source(cfg.source or own.source)
    if not own.cfg.train:
        raise UserError(f"no data: give source or {key}.source, a data set of `osjax data build`", status=2)
    return dataset.open_source(own.path("train"))


def held_out_source(cfg: DataKeys, own: OwnData, key: str = "data") -> Source:
    """The data set that a stage is evaluated on: the one that it names, or the run's own held-out clips."""
    if cfg.held_out:
        return dataset.open_source(cfg.held_out)
    if not own.cfg.held_out:
        raise UserError(f"nothing to evaluate on: give {key}.held_out, or set evaluate.every to 0", status=2)
    return dataset.open_source(own.path("held_out"))


def plan(source: dataset.Records, table: buckets.Buckets, seed: int, settled: bool = False) -> schedule.Plan:
    """Which clips every step trains on; clips that are left out of the first pass are named in a warning.

    source: records of the clips. table: the buckets and their batch sizes. seed: of the orders and draws. settled:
    clips keep the buckets of the first pass, instead of drawing them anew in each. UserError where no bucket fills a
    batch.
    """
    grouped = index.group(source.index(), table, seed)
    sizes = {bucket: table.batch_size(bucket) for bucket in grouped.possible}
    planned = schedule.Plan(grouped.members, sizes, seed, settled=settled or not grouped.drawing)
    first = planned.pass_of(0)
    unfit = len(source) - sum(map(len, first.members.values()))
    short = {b: len(m) for b, m in first.members.items() if b not in first.counts}
    if unfit or short:
        lines = [f"{unfit} fit no bucket"] if unfit else []
        lines += [
            f"{count} of {b.resolution} x {b.num_frames} frames, {b.aspect}, do not fill a batch of {sizes[b]}"
            for b, count in sorted(short.items())
        ]
        drawing = sum(len(clips.indices) for clips in grouped.drawing)
        anew = "" if planned.settled else f" of the first pass ({drawing} draw their bucket anew in each)"
        left_out = unfit + sum(short.values())
        log.warning("%d of %d clips are left out%s: %s", left_out, len(source), anew, "; ".join(lines))
    return planned


def video_batches(source: Source, table: buckets.Buckets, cfg: DataKeys, seed: int) -> Batches:
    """Endless batches {"video" levels (B, T, H, W, 3), "text"} of this process, as the plan of the source says.

    source, table, seed: as `plan` takes them. cfg: who reads and what captions say. UserError as for `plan`.
    """
    planned = plan(source, table, seed)
    stated = {"state_fps": cfg.state_fps, "state_motion": cfg.state_motion}
    options = {"fps_max": table.fps_max, "random_start": cfg.random_start, "exact": cfg.exact_resize, **stated}
    return bucketed.batches(
        source,
        planned,
        {bucket: loader.Window(*table.shape(bucket), **options) for bucket in planned.buckets},
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        readers=readers(cfg),
    )


def readers(cfg: DataKeys) -> bucketed.Readers:
    """Who reads batches, and how far ahead. cfg: the `data` group."""
    return bucketed.Readers(cfg.threads, cfg.workers, cfg.timeout_s, cfg.ahead_gb)
