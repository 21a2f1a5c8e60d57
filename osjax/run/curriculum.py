"""A run as a list of stages: checked together before the first begins, finished ones skipped, in order."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from osjax.conditioning.text import TextEncoder
from osjax.errors import UserError
from osjax.run import stage, train_data
from osjax.run.autoencoder_stage import AutoencoderStage
from osjax.run.autoencoders import read_scale
from osjax.run.diffusion_stage import DiffusionStage
from osjax.run.place import Place
from osjax.sampling import workdir as sampling_workdir
from osjax.sampling.workdir import TrainedModel

log = logging.getLogger(__name__)
KINDS = {"autoencoder": AutoencoderStage, "diffusion": DiffusionStage}
RUN_KEYS = ("workdir", "source", "clips", "compilation_cache", "tensorboard", "wandb", "checkpoints", "name")


def stages_of(cfg: ConfigDict) -> dict[str, ConfigDict]:
    """The stages of a run in order, by name."""
    if "stages" not in cfg:
        if "kind" not in cfg:
            raise UserError("this config is no training run: make one with configs/base.py, such as configs/smoke.py")
        return {cfg.name: ConfigDict({key: value for key, value in cfg.items() if key not in RUN_KEYS})}
    if sorted(cfg.order) != sorted(cfg.stages):
        raise UserError(f"order {tuple(cfg.order)} must name every stage once: {', '.join(cfg.stages)}", status=2)
    return {name: cfg.stages[name] for name in cfg.order}


class Curriculum:
    """All stages of a run, checked."""

    def __init__(self, cfg: ConfigDict):
        self.cfg = cfg
        workdir = Path(cfg.workdir)
        self.place = Place(workdir, cfg.checkpoints or str(workdir))
        self.own = train_data.OwnData(cfg.source, cfg.clips, workdir)
        self.configs = stages_of(cfg)
        self.stages = {}
        for name, stage_cfg in self.configs.items():
            self.stages[name] = self._made(name, stage_cfg)

    def _made(self, name: str, cfg: ConfigDict) -> Any:
        """One stage, which may refer to those before it."""
        if not name.replace("_", "").replace("-", "").isalnum():
            raise UserError(f"stage name {name!r} is used as a folder: write letters, digits, - and _ only", status=2)
        if cfg.kind not in KINDS:
            raise UserError(f"{name}: unknown kind {cfg.kind!r}: use one of {', '.join(KINDS)}", status=2)
        if cfg.steps < 1:
            raise UserError(f"{name}: steps is {cfg.steps}: give at least 1", status=2)
        before = {known: self.configs[known] for known in self.stages}
        if cfg.start.stage and cfg.start.stage not in before:
            raise UserError(f"{name}: start.stage {cfg.start.stage!r} is none of the stages before it", status=2)
        try:
            return KINDS[cfg.kind](name, cfg, self.place, before)
        except UserError as error:
            raise UserError(f"{name}: {error}", status=error.status) from error

    def train(self, options: stage.Options, each: Any = None) -> None:
        """Every stage to its end. each: called with a stage's name when it is finished."""
        for made in self.stages.values():
            if isinstance(made, DiffusionStage):
                made.check_devices()
        self.place.workdir.mkdir(parents=True, exist_ok=True)
        for name, made in self.stages.items():
            made.train(self.own, options)
            if each is not None:
                each(name)
        self._describe()

    def check_inputs(self) -> None:
        """UserError that lists all data sets and weights that the config names and that are not there."""
        problems = []
        for name, cfg in self.configs.items():
            given = {"data.source": cfg.data.source or self.cfg.source, "data.held_out": cfg.data.held_out}
            given["start.weights"] = cfg.start.weights
            if cfg.kind == "autoencoder":
                given |= {"lpips.weights": cfg.lpips.weights, "dinov2.weights": cfg.dinov2.weights}
            if cfg.kind == "diffusion":
                given["autoencoder.weights"] = cfg.autoencoder.weights
                given |= {"text.t5": cfg.text.t5, "text.clip": cfg.text.clip}
            problems += [
                f"{name}: {key} {path} does not exist"
                for key, path in given.items()
                if path and not epath.Path(path).exists()
            ]
            if not (cfg.data.source or self.cfg.source or self.cfg.clips.train):
                problems.append(f"{name}: no data.source, a data set of `osjax data build`")
        if problems:
            raise UserError("; ".join(problems), status=2)

    def _describe(self) -> None:
        """model.json: what `osjax sample` and `osjax eval recon` find in the workdir."""
        if self.cfg.checkpoints:  # paths in model.json never lead out of the workdir
            return
        last = next((n for n in reversed(self.configs) if self.configs[n].kind == "diffusion"), None)
        if last is None:
            last = next(reversed(self.configs))
            found = self._trained(last, self.stages[last].model_cfg), None, read_scale(self.place.workdir / last)
            sampling_workdir.save(self.place.workdir, sampling_workdir.Workdir(None, *found))
            return
        cfg, made = self.configs[last], self.stages[last]
        if made.lora is not None and not cfg.start.stage:
            log.warning("sample with --config.model.weights=%s and its adapter", cfg.start.weights)
            return
        ae_stage = cfg.autoencoder.stage
        autoencoder = self._trained(ae_stage, made.ae_cfg) if ae_stage else None
        sampling_workdir.save(
            self.place.workdir,
            sampling_workdir.Workdir(
                self._denoiser(last, made),
                autoencoder,
                None if cfg.text.t5 else TextEncoder(cfg.text.width, cfg.text.max_length),
                read_scale(self.place.workdir / ae_stage) if ae_stage else sampling_workdir.LatentScale(),
                dict(cfg.sample),
            ),
        )

    def _denoiser(self, name: str, made: DiffusionStage) -> TrainedModel:
        start = self.configs[name].start
        if made.lora is None:
            return self._trained(name, made.model_cfg)
        model = self._trained(start.stage, made.model_cfg)
        return replace(model, averaged=model.averaged and start.average, adapter=f"{name}/checkpoints")

    def _trained(self, name: str, model_cfg: Any) -> TrainedModel:
        averaged = self.configs[name].optimizer.ema_decay > 0
        return TrainedModel(model_cfg, f"{name}/checkpoints", averaged)


def summary(configs: Mapping[str, ConfigDict]) -> list[str]:
    """A line per stage, for --dry-run."""
    lines = []
    for name, cfg in configs.items():
        start = cfg.start.stage or cfg.start.weights or "new weights"
        rows = ", ".join(f"{r} x {frames} (batch {batch})" for r, frames, _, batch in cfg.data.buckets[:4])
        more = f", {len(cfg.data.buckets) - 4} more" if len(cfg.data.buckets) > 4 else ""
        lines.append(f"{name}: {cfg.kind}, {cfg.steps} steps from {start}; {rows}{more}")
    return lines
