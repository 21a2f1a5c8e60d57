"""Where else a run is shown, beside its workdir: TensorBoard files, Weights & Biases. Both are optional.

They get the numbers of every step, the samples of evaluations with their prompts, each stage's config, and where its
model comes from.
"""

import importlib
import io
import json
import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from osjax import atomic
from osjax.errors import UserError
from osjax.types import Json

WANDB_ID = "wandb_id.txt"  # in the workdir


@dataclass(frozen=True)
class Sample:
    """A sample of an evaluation. path: its MP4 or PNG. prompt: its own. video_THWC: uint8. fps: frames a second."""

    path: Path
    prompt: str
    video_THWC: np.ndarray
    fps: float


class Dashboard(Protocol):
    """A place that shows a run. Stages of a run have names of their own."""

    def begin(self, stage: str, config: Json, lineage: Json) -> None:
        """Take the config of a stage and its `lineage`, where its model comes from, before its first step."""

    def show(self, stage: str, step: int, samples: Sequence[Sample]) -> None:
        """Take the samples of an evaluation before a step of this stage."""

    def write(self, stage: str, step: int, values: Mapping[str, Any]) -> None:
        """Take the numbers among the values of a step of this stage."""

    def close(self) -> None:
        """Write what still waits to be written."""


class TensorBoard:
    """Event files in a folder, one run for every stage. folder: of them. UserError without tensorboardX.

    Its text has the prompts, the config and the lineage; samples are images that move (GIF), since what it calls video
    would be one, too.
    """

    def __init__(self, folder: Path):
        self._module, self._folder = _import("tensorboardX", "tensorboard"), Path(folder)
        self._proto = importlib.import_module("tensorboardX.proto.summary_pb2").Summary
        self._writers: Json = {}
        self._told: dict[str, dict[str, str]] = {}

    def begin(self, stage: str, config: Json, lineage: Json) -> None:
        """Keep the config and the lineage of a stage, JSON values, for its event file."""
        self._told[stage] = {"config": _block(config), "lineage": _block(lineage)}

    def write(self, stage: str, step: int, values: Mapping[str, Any]) -> None:
        """Add the finite numbers among the values of a step to the event file of this stage."""
        writer = self._writer(stage, step)
        for name, value in numbers(values).items():
            writer.add_scalar(name, value, step)

    def show(self, stage: str, step: int, samples: Sequence[Sample]) -> None:
        """Add the samples of a step to the event file of this stage, each with its prompt."""
        writer = self._writer(stage, step)
        for number, sample in enumerate(samples):
            T, H, W, _ = sample.video_THWC.shape
            gif = self._proto.Image(height=H, width=W, colorspace=3, encoded_image_string=_gif(sample))
            value = self._proto.Value(tag=f"samples/{number}", image=gif)
            writer.file_writer.add_summary(self._proto(value=[value]), step)
            writer.add_text(f"prompts/{number}", sample.prompt, step)

    def _writer(self, stage: str, step: int) -> Any:
        if stage not in self._writers:
            # Steps that a restart does again replace those of the killed process.
            self._writers[stage] = self._module.SummaryWriter(str(self._folder / stage), purge_step=step)
            for name, text in self._told.pop(stage, {}).items():
                self._writers[stage].add_text(name, text, step)
        return self._writers[stage]

    def close(self) -> None:
        """Write what still waits to be written."""
        for writer in self._writers.values():
            writer.close()


class WandB:
    """A run on a Weights & Biases server, by that library's own settings (WANDB_API_KEY, WANDB_MODE=offline, ...).

    project: its name there. workdir: of the run, whose name is the run's. config: shown beside it. UserError where
    wandb is not installed, and where it does not begin.
    """

    def __init__(self, project: str, workdir: Path, config: Mapping[str, Any]):
        self._wandb = _import("wandb", "wandb")
        name = Path(workdir).absolute().name
        begun = {"project": project, "name": name, "id": _wandb_id(Path(workdir), name), "resume": "allow"}
        try:
            self._run = self._wandb.init(**begun, dir=str(workdir), config=dict(config))
        except Exception as error:  # of the library: no key, no server, a project that is none
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise UserError(f"wandb does not begin ({reason}): `wandb login`, or set WANDB_MODE=offline") from error

    def begin(self, stage: str, config: Json, lineage: Json) -> None:
        """Add the lineage of a stage, JSON values, to the run's config, which has the stage's own."""
        self._run.config.update({"lineage": {**dict(self._run.config).get("lineage", {}), stage: lineage}}, True)

    def write(self, stage: str, step: int, values: Mapping[str, Any]) -> None:
        """Log the finite numbers among the values of a step: `stage`/NAME each, and `stage`/step beside them."""
        named = {f"{stage}/{name}": value for name, value in numbers(values).items()}
        self._run.log({**named, f"{stage}/step": step})

    def show(self, stage: str, step: int, samples: Sequence[Sample]) -> None:
        """Log the samples of a step, their prompts below them, as `stage`/samples."""
        shown = [
            self._wandb.Image(str(sample.path), caption=sample.prompt)
            if sample.path.suffix == ".png"
            else self._wandb.Video(str(sample.path), caption=sample.prompt, format="mp4")
            for sample in samples
        ]
        self._run.log({f"{stage}/samples": shown, f"{stage}/step": step})

    def close(self) -> None:
        """Send what still waits to be sent."""
        self._run.finish()


def _wandb_id(workdir: Path, name: str) -> str:
    """The run's name at W&B, by which a restart goes on with it, and which no other folder of that name has."""
    path = workdir / WANDB_ID
    if not path.is_file():
        workdir.mkdir(parents=True, exist_ok=True)
        atomic.write_text(path, f"{name}-{secrets.token_hex(4)}\n")
    return path.read_text().strip()


def _gif(sample: Sample) -> bytes:
    """A sample as a GIF that plays for ever."""
    first, *rest = [Image.fromarray(frame) for frame in sample.video_THWC]
    file = io.BytesIO()
    first.save(file, format="GIF", save_all=True, append_images=rest, duration=round(1000 / sample.fps), loop=0)
    return file.getvalue()


def _block(value: Json) -> str:
    """JSON as Markdown shows it as it is."""
    return "\n".join(f"    {line}" for line in json.dumps(value, indent=1, ensure_ascii=False).splitlines())


def check(tensorboard: bool, wandb: str | None) -> None:
    """UserError where a library of the dashboards is not installed that a run asks for.

    tensorboard: whether event files are. wandb: the project that is.
    """
    for wanted, module, extra in ((tensorboard, "tensorboardX", "tensorboard"), (wandb, "wandb", "wandb")):
        if wanted:
            _import(module, extra)


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers among values."""
    kept = {name: value for name, value in values.items() if isinstance(value, int | float)}
    return {name: float(value) for name, value in kept.items() if math.isfinite(value)}


def _import(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"{module} is not installed: pip install 'osjax[{extra}]'") from error
