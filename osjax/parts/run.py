"""A training run from a config: where it keeps things, what it trains on, and the recipes of its stages in order."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from jax.sharding import AbstractMesh, Mesh
from ml_collections import ConfigDict

from osjax import json_file, object_store
from osjax.errors import Gathered, Problems, UserError, usage
from osjax.object_store import is_url
from osjax.parallel import compiled
from osjax.parallel import mesh as device_mesh
from osjax.parts import autoencoder_stage, diffusion, hub, released
from osjax.parts.autoencoder_stage import AutoencoderRecipe
from osjax.parts.clips import ClipSet
from osjax.parts.diffusion import DiffusionRecipe
from osjax.parts.groups import group, to_dataclass
from osjax.parts.place import LOCAL_WORKDIR, Place
from osjax.parts.stage import plain

PINS = "hub.json"  # in the workdir
CONFIG = "config.json"  # in the workdir too: the config of its last start
FILES = ("start.weights", "autoencoder.weights", "text.t5", "text.clip", "lora.start")  # keys that name weights
RECIPES = {"autoencoder": autoencoder_stage.recipe, "diffusion": diffusion.recipe}
Recipe = AutoencoderRecipe | DiffusionRecipe


@dataclass(frozen=True)
class RunKeys:
    """What a whole run is told."""

    workdir: str = ""  # metrics.jsonl, model.json, data made here, and checkpoints
    checkpoints: str | None = None  # folder for checkpoints elsewhere, such as s3://bucket/run; none: in the workdir
    local_checkpoints: str | None = None  # folder on each host's own disk, for stages' checkpoint.local_every
    source: str | None = None  # data set of `osjax data build`, for all stages that name none in data.source
    clips: ClipSet = ClipSet()  # procedural clips for runs that bring no data; made in workdir/data
    compilation_cache: str = compiled.FOLDER  # compiled steps are kept here; empty keeps none
    tensorboard: bool = False  # also write workdir/tensorboard; needs osjax[tensorboard]
    wandb: str | None = None  # project of Weights & Biases to write to as well; needs osjax[wandb]
    name: str = ""  # of the one stage of a run that has one
    order: tuple[str, ...] = ()  # names of `stages`
    stages: Mapping[str, Any] = field(default_factory=dict)


def keys(workdir: str) -> ConfigDict:
    """The keys of a run without its stages, for config files to add to."""
    return group(RunKeys, but=("name", "order", "stages"), workdir=workdir)


@dataclass(frozen=True)
class Run:
    """A checked run: its keys, where it keeps things, its stages in order by name, and its config as JSON.

    pins: commits of the branches that `hf://` paths of its config name.
    """

    keys: RunKeys
    place: Place
    stages: Mapping[str, Recipe]
    saved: Mapping[str, Any]
    pins: Mapping[str, str] = field(default_factory=dict)

    def diffusion(self, names: Sequence[str] = ()) -> dict[str, DiffusionRecipe]:
        """The stages of the video model, or those of them that are named. UserError for a name that is none."""
        known = {name: stage for name, stage in self.stages.items() if stage.kind == "diffusion"}
        for name in names:
            if name not in known:
                choices = ", ".join(known) or "a config that has one"
                raise UserError(f"no diffusion stage {name!r}: use {choices}", status=2)
        return {name: stage for name, stage in known.items() if not names or name in names}


@usage()
def of_config(
    cfg: ConfigDict,
    make_mesh: Callable[..., Mesh | AbstractMesh] = device_mesh.make,
    ignored: tuple[str, ...] = (),
) -> Run:
    """The run that a config describes. UserError, status 2, for what cannot work: all of it, a line each.

    make_mesh: makes the mesh of a stage from the sizes of its axes. ignored: keys of the run that another part reads.
    """
    pins = _pins(str(cfg.get("workdir") or ""))
    cfg = hub.resolved(cfg, pins)
    names = {f.name for f in fields(RunKeys)} | set(ignored)
    own = {key: value for key, value in cfg.items() if key in names and key not in ignored}
    of_stages = stages_of(cfg, names)
    run = to_dataclass(RunKeys, own, "")
    made: dict[str, Recipe] = {}
    problems = Gathered()
    for name, stage in of_stages.items():
        if not _builds_on(stage, of_stages.keys() - made.keys() if problems.lines else ()):
            with problems:
                made[name] = _recipe(name, _with_source(stage, run.source), made, make_mesh)
    problems.end()
    if is_url(run.workdir):
        raise UserError(f"config.workdir is {run.workdir}, a URL: {LOCAL_WORKDIR}", status=2)
    _check_local(run.local_checkpoints, made)
    local = Path(run.local_checkpoints) if run.local_checkpoints else None
    place = Place(Path(run.workdir), run.checkpoints or str(Path(run.workdir)), local)
    return Run(run, place, made, plain(cfg), pins)


def _check_local(folder: str | None, stages: Mapping[str, Recipe]) -> None:
    """UserError, status 2, for a fast tier of checkpoints of which only half is said: where, or how often."""
    every = {name: stage.keys.checkpoint.local_every for name, stage in stages.items()}
    if folder and not any(every.values()):
        raise UserError(
            f"config.local_checkpoints is {folder}, but no stage saves there: set its checkpoint.local_every, in steps",
            status=2,
        )
    for name, steps in every.items():
        if steps and not folder:
            raise UserError(
                f"{name}: checkpoint.local_every is {steps}, but there is no folder for it: name one on each host's "
                "own disk, by config.local_checkpoints",
                status=2,
            )


def config_of(workdir: Path) -> ConfigDict:
    """The config that a run was last started with, from its workdir, which may have been moved since.

    UserError where the workdir holds none.
    """
    saved = json_file.read(workdir / CONFIG, "give the workdir of a run, or its --config=FILE.py")
    cfg = ConfigDict(_tuples(saved))
    cfg.workdir = str(workdir)
    return cfg


def _tuples(value: Any) -> Any:
    """JSON has lists where configs have tuples."""
    if isinstance(value, dict):
        return {name: _tuples(one) for name, one in value.items()}
    return tuple(_tuples(one) for one in value) if isinstance(value, list) else value


def _pins(workdir: str) -> dict[str, str]:
    """What the `hf://` paths of a run meant when it began; nothing of a new one."""
    path = Path(workdir) / PINS
    if not workdir or is_url(workdir) or not path.is_file():
        return {}
    pins = json_file.read(path, "delete it, or use another --config.workdir")
    return {str(name): str(commit) for name, commit in pins.items()}


def stages_of(cfg: ConfigDict, run_keys: set[str] | None = None) -> dict[str, ConfigDict]:
    """The keys of a run's stages in order, by name. run_keys: those that are no stage's, where there is one stage."""
    run_keys = run_keys or {f.name for f in fields(RunKeys)}
    if "stages" not in cfg:
        if "kind" not in cfg:
            raise UserError("this config is no training run: make one with configs/base.py, such as configs/smoke.py")
        return {cfg.name: ConfigDict({key: value for key, value in cfg.items() if key not in run_keys})}
    unknown = [key for key in cfg if key not in run_keys]
    if unknown:
        raise UserError(f"unknown config key {unknown[0]}: the stages have keys of their own, below stages", status=2)
    if sorted(cfg.order) != sorted(cfg.stages):
        raise UserError(f"order {tuple(cfg.order)} must name every stage once: {', '.join(cfg.stages)}", status=2)
    return {name: cfg.stages[name] for name in cfg.order}


def _with_source(cfg: ConfigDict, source: str | None) -> ConfigDict:
    """A stage's keys, whose buckets are chosen from the run's data set where the stage names none."""
    if not (source and cfg.get("kind") == "diffusion" and cfg.data.choose.resolution and not cfg.data.source):
        return cfg
    cfg = ConfigDict(cfg)
    cfg.data.source = source
    return cfg


def _builds_on(cfg: ConfigDict, names: Collection[str]) -> bool:
    """Whether a stage begins from one of these stages, or uses its autoencoder."""
    return any(cfg[group].get("stage") in names for group in ("start", "autoencoder") if group in cfg)


def _recipe(name: str, cfg: ConfigDict, before: Mapping[str, Recipe], make_mesh: Callable) -> Recipe:
    """One stage, which may refer to those before it."""
    if not name.replace("_", "").replace("-", "").isalnum():
        raise UserError(f"stage name {name!r} is used as a folder: write letters, digits, - and _ only", status=2)
    if cfg.kind not in RECIPES:
        raise UserError(f"{name}: unknown kind {cfg.kind!r}: use one of {', '.join(RECIPES)}", status=2)
    try:
        return RECIPES[cfg.kind](name, cfg, before, make_mesh)
    except UserError as error:
        raise Problems([f"{name}: {line}" for line in error.lines]) from error


def missing_inputs(run: Run, finished: Collection[str] = (), resumed: Collection[str] = ()) -> list[str]:
    """What the run names and what is not there: data sets and weights, one sentence each.

    finished: stages that read nothing any more. resumed: stages whose checkpoints hold what they started from.
    """
    problems: list[str] = []
    lost: list[str] = []
    for name, stage in run.stages.items():
        if name in finished:
            continue
        data, source = stage.keys.data, stage.keys.data.source or run.keys.source
        given = {"data.source": source, "data.held_out": data.held_out, "start.weights": stage.keys.start.weights}
        if stage.kind == "autoencoder":
            given |= {"lpips.weights": stage.keys.lpips.weights, "dinov2.weights": stage.keys.dinov2.weights}
        else:
            given |= {"autoencoder.weights": stage.autoencoder.weights, "lora.start": stage.keys.lora.start}
            given |= {"data.features": data.features, "text.t5": stage.text.t5, "text.clip": stage.text.clip}
        if name in resumed:
            given = {key: path for key, path in given.items() if key not in _kept(stage)}
        absent = {key: path for key, path in given.items() if path and not object_store.exists(path)}
        problems += [f"{name}: {key} {path} does not exist" for key, path in absent.items()]
        lost += absent.values()
        if not (source or run.keys.clips.train):
            problems.append(f"{name}: no data.source, a data set of `osjax data build`")
    problems += [f"missing files are published: {command}" for command in released.fetching(lost)]
    return problems


def lost_files(cfg: ConfigDict, ignored: tuple[str, ...] = ()) -> list[str]:
    """Weights and tokenizers that a config names and that are not there, of one that makes no run for other reasons,
    with the commands that fetch them; nothing where none of them is published.

    ignored: as `of_config` takes it. Stages that have begun are left out: they may have what they started from.
    """
    problems, lost = [], []
    folder = str(cfg.get("checkpoints") or cfg.get("workdir") or "")
    for name, stage in stages_of(cfg, {f.name for f in fields(RunKeys)} | set(ignored)).items():
        for key in () if object_store.exists(f"{folder}/{name}/checkpoints") else FILES:
            group, value = stage, None
            for part in key.split("."):
                value = group.get(part) if isinstance(group, ConfigDict) else None
                group = value
            if isinstance(value, str) and value and not is_url(value) and not Path(value).exists():
                problems.append(f"{name}: {key} {value} does not exist")
                lost.append(value)
    told = [f"missing files are published: {command}" for command in released.fetching(lost)]
    return [*problems, *told] if told else []


def _kept(stage: Recipe) -> set[str]:
    """Keys whose files a checkpoint of a stage holds, so that going on needs them no more."""
    kept = {"lpips.weights", "dinov2.weights", "lora.start"}
    beneath = stage.adapters is not None or stage.taught is not None  # that model is read again
    return kept if beneath else kept | {"start.weights"}
