"""A model by its name in a config of models, as `osjax convert --model=NAME` takes it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ml_collections import ConfigDict

from osjax import models, weights
from osjax.errors import UserError
from osjax.parts.config import nearest
from osjax.parts.groups import to_dataclass
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
