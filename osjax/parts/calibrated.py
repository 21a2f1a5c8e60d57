"""Where the calibration of a model lies, beside its weights, and what tells these weights from others."""

from pathlib import Path

from osjax.sampling.calibration import FILE, Calibration
from osjax.sampling.workdir import TrainedModel


def of_run(folder: Path, model: TrainedModel, weights: str | None) -> Calibration:
    """The calibration of a run's video model, in its workdir.

    folder: the workdir. model: the video model. weights: of the model beneath adapters, where the run trained those.
    """
    told = {name: path for name, path in (("checkpoints", model.checkpoints), ("adapter", model.adapter)) if path}
    at = {name: f"{path}/{_newest(folder / path)}" for name, path in told.items()}
    return Calibration(folder / FILE, {**at, **({"file": Path(weights).name} if weights else {})})


def of_weights(path: str) -> Calibration:
    """The calibration of weight files: in their folder, or beside the file under its name. path: of either."""
    weights = Path(path)
    if weights.is_dir():
        return Calibration(weights / FILE, {"folder": weights.name})
    size = weights.stat().st_size if weights.is_file() else 0
    return Calibration(weights.with_name(f"{weights.name}.{FILE}"), {"file": weights.name, "bytes": size})


def _newest(checkpoints: Path) -> str:
    steps = [int(step.name) for step in checkpoints.glob("[0-9]*") if step.name.isdigit()]
    return str(max(steps, default=0))
