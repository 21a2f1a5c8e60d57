"""A model by its name in a config of models, as `osjax convert --model=NAME` takes it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from osjax import models, weights
from osjax.errors import UserError
from osjax.parts.config import nearest
from osjax.parts.groups import to_dataclass
from osjax.sampling import workdir
from osjax.sampling.workdir import TrainedModel
from osjax.weights import orbax_stream
from osjax.weights.layout import OPEN_SORA_V2, Layout


@dataclass(frozen=True)
class NamedModel:
    """A model of a config of models.

    config: of its family. layout: of its files. says: what a converted checkpoint keeps of the config, JSON values.
    """

    config: Any
    layout: Layout
    says: Mapping[str, Any]


def of_config(cfg: ConfigDict, name: str, layout: str | None = None) -> NamedModel:
    """The model of a group {family, config, layout} of a config.

    name: of the group. layout: instead of the group's. UserError for an unknown model, layout or field.
    """
    if name not in cfg or not isinstance(cfg[name], ConfigDict) or "family" not in cfg[name]:
        close = nearest(name, cfg)
        mend = f"did you mean {close}?" if close else f"the config has {', '.join(cfg)}"
        raise UserError(f"unknown model {name}: {mend}", status=2)
    group = cfg[name]
    if unknown := [key for key in group if key not in ("family", "config", "layout")]:
        raise UserError(f"unknown config key {name}.{unknown[0]}; valid keys are family, config, layout", status=2)
    key, layout = ("--layout", layout) if layout else (f"{name}.layout", group.get("layout"))
    named = weights.layout_named(layout, key) if layout else OPEN_SORA_V2
    if layout and not weights.has_layouts(group.family):
        raise UserError(f"--layout is for diffusion models; {name} has only one", status=2)
    made = to_dataclass(models.config_class(group.family), group.get("config") or ConfigDict(), f"{name}.config")
    return NamedModel(made, named, {"model": name, **group.to_dict()})


def of_run(folder: Path, layout: str | None = None) -> tuple[Path, NamedModel]:
    """What a finished run trained last: its parameters, as sampling takes them, and the model that they are of.

    Adapters where it trained some, else the video model, else the autoencoder. folder: the run's workdir. layout: of
    the files to write, instead of those that the run began from. UserError where there is no finished run.
    """
    run = workdir.read(folder)
    model = run.denoiser or run.autoencoder
    if model is None:
        raise UserError(f"the run in {folder} trained no model: give another")
    return of_trained(folder, model, layout or run.files.get("model", {}).get("layout"))


def of_trained(folder: Path, model: TrainedModel, layout: str | None = None) -> tuple[Path, NamedModel]:
    """The newest parameters of a `model` of the run in `folder`, and its name. layout: as `of_run` takes it."""
    checkpoints = folder / str(model.adapter or model.checkpoints)
    newest = orbax_stream.find(checkpoints, average=model.averaged)
    if newest is None:
        raise UserError(f"{checkpoints} holds no checkpoint: the run did not finish, run it again")
    family = models.family_of(model.config)
    named = weights.layout_named(layout, "layout") if layout else OPEN_SORA_V2
    says = {"model": folder.absolute().name, "family": family, "config": asdict(model.config), "layout": layout or ""}
    return newest, NamedModel(model.config, named, says)
