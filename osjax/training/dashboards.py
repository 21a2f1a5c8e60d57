"""Where else a run's metrics go, beside metrics.jsonl: TensorBoard files, Weights & Biases. Both are optional."""

import importlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from osjax.errors import UserError
from osjax.types import Json


class Dashboard(Protocol):
    """A place that takes the numbers of every step. Stages of a run have names of their own."""

    def write(self, stage: str, step: int, values: Mapping[str, Any]) -> None:
        """Take the numbers among the values of a step of this stage."""

    def close(self) -> None:
        """Write what still waits to be written."""


class TensorBoard:
    """Event files in a folder, one run for every stage; `write` takes the stage's name, the step and its values."""

    def __init__(self, folder: Path):
        self._module, self._folder = _import("tensorboardX", "tensorboard"), Path(folder)
        self._writers: Json = {}

    def write(self, stage: str, step: int, values: Mapping[str, Any]) -> None:
        """Add the finite numbers among the values of a step to the event file of this stage."""
        if stage not in self._writers:
            # Steps that a restart does again replace those of the killed process.
            self._writers[stage] = self._module.SummaryWriter(str(self._folder / stage), purge_step=step)
        for name, value in numbers(values).items():
            self._writers[stage].add_scalar(name, value, step)

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()


class WandB:
    """A run on a Weights & Biases server, by that library's own settings (WANDB_API_KEY, WANDB_MODE=offline, ...).

    project: its name there. workdir: of the run, whose name is the run's. config: shown beside it. UserError where
    wandb is not installed.
    """

    def __init__(self, project: str, workdir: Path, config: Mapping[str, Any]):
        wandb = _import("wandb", "wandb")
        # The workdir names the run, so that a restart goes on with it.
        name = Path(workdir).absolute().name
        self._run = wandb.init(project=project, id=name, resume="allow", dir=str(workdir), config=dict(config))

    def write(self, stage: str, step: int, values: Mapping[str, Any]) -> None:
        """Log the finite numbers among the values of a step: `stage`/NAME each, and `stage`/step beside them."""
        named = {f"{stage}/{name}": value for name, value in numbers(values).items()}
        self._run.log({**named, f"{stage}/step": step})

    def close(self) -> None:
        self._run.finish()


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
