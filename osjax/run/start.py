"""What a stage starts from: another stage, a weight file, an image model, or, for adapters, the model beneath."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from osjax import models
from osjax.errors import UserError
from osjax.models.lora import LoRAConfig
from osjax.run import adapters
from osjax.run.place import Place
from osjax.training import state
from osjax.training.freeze import Freeze
from osjax.weights import inflate, init, load, orbax_stream
from osjax.weights.layout import layout_named
from osjax.weights.leaves import Leaves


def base_leaves(cfg: ConfigDict, model_cfg: Any, place: Place) -> Leaves:
    """The model that the adapters of a stage are of."""
    start = cfg.start
    path = place.of(start.stage) if start.stage else start.weights
    layout = layout_named(start.layout, "start.layout")
    return load.open_leaves(model_cfg, path, layout=layout, average=start.average)


def leaves_of(cfg: ConfigDict, model_cfg: Any, place: Place, lora: LoRAConfig | None = None) -> Leaves | None:
    """The parameters, or adapters, that a fresh stage starts from, fitted to its model; None for new ones."""
    if lora is not None:
        return adapters.start(cfg.lora.start, lora, model_cfg)
    start = cfg.start
    if start.stage and start.weights:
        raise UserError("give one of start.stage and start.weights", status=2)
    if start.stage:
        source = of_checkpoint(place.of(start.stage), start.average)
    elif start.weights:
        source = _of_weights(start, model_cfg)
    else:
        return None
    if start.inflate:
        return inflate.inflated(model_cfg, source)
    if models.family_of(model_cfg) != "mmdit":
        return source
    return init.from_model(model_cfg, source, cfg.seed)


def of_checkpoint(folder: Any, average: bool = True) -> Leaves:
    """The parameters of the newest checkpoint in a folder; average: their moving average where it has one."""
    found = orbax_stream.find(Path(folder), average=average)
    if found is None:
        raise UserError(f"{folder} holds no checkpoint to start from: train that stage first")
    return orbax_stream.open_leaves(found)


def _of_weights(start: ConfigDict, model_cfg: Any) -> Leaves:
    if Path(start.weights).is_dir() and orbax_stream.find(Path(start.weights)) is not None:
        return of_checkpoint(start.weights, start.average)
    like = inflate.image_config(model_cfg) if start.inflate else model_cfg
    source_cfg = models.config(models.family_of(model_cfg), **{**asdict(like), **start.config.to_dict()})
    return load.open_leaves(source_cfg, start.weights, layout=layout_named(start.layout, "start.layout"))


def put(leaves: Leaves, now: state.TrainState, shardings: Any, freeze: Freeze) -> state.TrainState:
    """A fresh state with these parameters instead of its own."""
    params = load.place(leaves, shardings.params, jnp.float32)
    if now.ema is None:
        return now.replace(params=params)
    # The moving average starts at the same weights, in buffers of its own: both are donated.
    copy = jax.jit(lambda tree: jax.tree.map(lambda x: x + 0, tree), out_shardings=shardings.ema)
    return now.replace(params=params, ema=copy(freeze.trained(params)))
