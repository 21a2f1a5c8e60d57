"""Where a stage's weights come from, as config keys say it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from osjax.errors import UserError
from osjax.parts.groups import refuse
from osjax.weights.layout import layout_named


@dataclass(frozen=True)
class StartKeys:
    """Nothing given is a fresh start. Give one of stage and weights."""

    stage: str | None = None  # name of an earlier stage of this run
    weights: str | None = None  # a weight file, or a folder with checkpoints
    layout: str = "open_sora_v2"  # of velocity models in files: open_sora_v2, flux or flux_diffusers
    config: Mapping[str, Any] = field(default_factory=dict)  # keys of the model in `weights` unlike this stage's
    average: bool = True  # take the moving average where the stage kept one
    inflate: bool = False  # they are an image DC-AE's: its flat kernels become the middle taps of a video model's


def check(keys: StartKeys, before: Mapping[str, Any], kind: str, key: str = "start") -> None:
    """UserError for a start that cannot work, and for keys that say nothing beside the others.

    before: stages of the run before this one, by name. kind: of the stage. key: the group's dotted name.
    """
    layout_named(keys.layout, f"{key}.layout")
    if keys.stage and keys.weights:
        raise UserError(f"give one of {key}.stage and {key}.weights", status=2)
    if keys.stage and keys.stage not in before:
        raise UserError(f"{key}.stage {keys.stage!r} is none of the stages before it", status=2)
    if kind == "autoencoder":
        read = ("stage", "weights", "config", "average", "inflate")
        refuse(keys, key, read, "an autoencoder has one layout")
    else:
        refuse(keys, key, ("stage", "weights", "layout", "config", "average"), "the model is no autoencoder")
    if not (keys.stage or keys.weights):
        refuse(keys, key, (), f"neither {key}.stage nor {key}.weights is given")
    elif keys.stage:
        refuse(keys, key, ("stage", "average", "inflate"), f"{key}.stage names the weights")
