"""What is known of the training of a model that is sampled: by its run, its adapters' runs, or their repositories."""

from collections.abc import Sequence
from pathlib import Path

from osjax import json_file
from osjax.errors import UserError
from osjax.parts.hub_upload import MARK
from osjax.parts.sampling import SamplingKeys
from osjax.sampling import trained, workdir
from osjax.sampling.trained import Trained


def unlike(keys: SamplingKeys, prompts: Sequence[str], frames: int, height: int, width: int) -> list[str]:
    """What prompts and sizes have that no training had, a line each that says what was trained.

    keys: of the sampling. prompts: of the samples. frames, height, width: of the samples, in pixels.
    """
    lines: list[str] = []
    paths = [path for path in (keys.workdir, keys.model.weights) if path]
    for path in [*paths, *(path for path, strength in keys.model.added if strength)]:
        if (known := of_path(Path(path))) is not None:
            lines += known.unlike(prompts, frames, height, width)
    return list(dict.fromkeys(lines))


def of_path(path: Path) -> Trained | None:
    """What is known of weights: by the run or the repository that `path` is, or lies in; None where nothing is."""
    for folder in (path, *path.absolute().parents[:3]):
        try:
            if (folder / workdir.FILE).is_file():
                return workdir.read(folder).trained
            if (folder / MARK).is_file():
                return trained.of_json(dict(json_file.read(folder / MARK, "-", keys=("trained",))["trained"]))
        except (UserError, ValueError, TypeError, AttributeError):  # hints alone are lost
            return None
    return None
