"""`model.json`: what a training run leaves in its workdir so that sampling finds its models again.

Paths are relative to the workdir, which may therefore be moved, and never lead out of it. Weight files that the run
took from elsewhere are named apart, under `files`, and only read as weights.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from osjax import atomic, json_file, models
from osjax.conditioning.text import TextEncoder
from osjax.errors import UserError
from osjax.models.autoencoder import LatentScale
from osjax.sampling import distilled, trained
from osjax.sampling.distilled import Distilled
from osjax.sampling.settings import SampleSettings
from osjax.sampling.trained import Trained
from osjax.types import Json

FILE = "model.json"
VERSION = 1


@dataclass(frozen=True)
class TrainedModel:
    """A model that a run trained.

    config: of a family of `osjax.models`. checkpoints: folder of its checkpoints, relative to the workdir; None for a
    model of `Workdir.files` beneath adapters.

    averaged: whether to take the moving average of the parameters, which the stage kept. adapter: folder of the
    checkpoints of adapters that belong to it, likewise relative.
    """

    config: Any
    checkpoints: str | None
    averaged: bool = True
    adapter: str | None = None


@dataclass(frozen=True)
class Workdir:
    """What a finished run left to sample with.

    denoiser, autoencoder: what was trained; None where it was not trained there. latent_scale: normalisation of the
    autoencoder's latents, measured. text: the built-in encoder; None for T5 and CLIP. settings: what to sample with
    where nothing else is asked for (keys of SampleSettings). files: what the run took from elsewhere, as groups of
    config keys: `model` beneath adapters (weights, layout, average), `autoencoder` and `text`. trained: what the video
    model was trained on last. distilled: what the video model can be asked for, where it is a distilled one.
    """

    denoiser: TrainedModel | None
    autoencoder: TrainedModel | None
    text: TextEncoder | None = None
    latent_scale: LatentScale = LatentScale()
    settings: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    trained: Trained = Trained()
    distilled: Distilled | None = None


def save(workdir: Path, description: Workdir) -> Path:
    """Write a description as the `model.json` of a workdir, whole or not at all; its path.

    UserError and TypeError for settings that are none of SampleSettings.
    """
    scale = {f.name: np.asarray(getattr(description.latent_scale, f.name)).tolist() for f in fields(LatentScale)}
    content = {
        "version": VERSION,
        "denoiser": description.denoiser and _model_to_json(description.denoiser),
        "autoencoder": description.autoencoder and _model_to_json(description.autoencoder),
        "latent_scale": scale,
        "text": description.text and asdict(description.text),
        "settings": dict(description.settings),
        "files": {name: dict(group) for name, group in description.files.items()},
        "trained": description.trained.to_json(),
        **({"distilled": description.distilled.to_json()} if description.distilled else {}),
    }
    SampleSettings(**description.settings)  # a wrong key is the caller's, not the reader's
    atomic.write_text(Path(workdir) / FILE, json.dumps(content, indent=2) + "\n")
    return Path(workdir) / FILE


def read(workdir: Path | str) -> Workdir:
    """The description in a workdir. UserError where there is none, or one that this version cannot use."""
    path = Path(workdir) / FILE
    if not path.is_file():
        raise UserError(f"{workdir} holds no {FILE}: give the workdir of a run that finished, such as runs/demo")
    try:
        content = json_file.read(path, "finish the run again to write it anew")
        if content["version"] != VERSION:
            raise ValueError(f"version {content['version']}, this osjax reads {VERSION}")
        SampleSettings(**content["settings"])
        scale = [np.asarray(x, np.float32) if isinstance(x, list) else x for x in content["latent_scale"].values()]
        return Workdir(
            content["denoiser"] and _model_from_json(content["denoiser"], path.parent),
            content["autoencoder"] and _model_from_json(content["autoencoder"], path.parent),
            content["text"] and TextEncoder(**content["text"]),
            LatentScale(*scale),
            content["settings"],
            {str(name): dict(group) for name, group in content.get("files", {}).items()},
            trained.of_json(content.get("trained", {})),  # runs of before do not say
            distilled.of_json(content.get("distilled", {})),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} cannot be read ({error}): finish the run again to write it anew") from error


def _model_to_json(model: TrainedModel) -> Json:
    family = models.family_of(model.config)
    return {
        "family": family,
        "config": asdict(model.config),
        "checkpoints": model.checkpoints,
        "averaged": model.averaged,
        "adapter": model.adapter,
    }


def _model_from_json(content: Mapping[str, Any], workdir: Path) -> TrainedModel:
    adapter = content.get("adapter")
    for path in (content["checkpoints"] or "", adapter or ""):
        if not (workdir / path).resolve().is_relative_to(workdir.resolve()):
            raise ValueError(f"checkpoints {path} lead out of the workdir")
    config = models.config(content["family"], **content["config"])
    return TrainedModel(config, content["checkpoints"], bool(content["averaged"]), adapter)
