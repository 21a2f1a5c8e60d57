"""What a stage starts from: another stage, a weight file, an image model, or, for adapters, the model beneath."""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from osjax import models, weights
from osjax.errors import UserError
from osjax.models import shapes
from osjax.parts import lora
from osjax.parts.place import Place
from osjax.parts.run import Recipe
from osjax.parts.start import StartKeys
from osjax.training import state
from osjax.training.freeze import Freeze
from osjax.types import ModelConfig, Tree
from osjax.weights import inflate, init, load, orbax_stream
from osjax.weights.layout import layout_named
from osjax.weights.leaves import Leaves, of_params
from osjax.weights.lora import blank

# Beside a LoRA stage's config in its checkpoints, of the weights that these do not hold: their sum, and their corners.
BASE, CORNERS = "base_checksum", "base_corners"
CORNER = 8  # values along each axis


def base_leaves(recipe: Recipe, place: Place) -> Leaves:
    """The parameters of the model that the adapters of a stage are of, or of its teacher; nothing is read yet.

    recipe: of the stage, which names that model in `start`. place: where the run keeps things. UserError where there is
    no such model.
    """
    start = recipe.keys.start
    path = place.of(start.stage) if start.stage else start.weights
    model = recipe.model if recipe.taught is None else recipe.taught.teacher
    return load.open_leaves(model, path, layout=layout_named(start.layout, "start.layout"), average=start.average)


def leaves_of(recipe: Recipe, place: Place) -> Leaves | None:
    """The parameters, or adapters, that a fresh stage starts from, fitted to its model; None for new ones.

    place: where the run keeps things.
    """
    if recipe.adapters is not None:
        return lora.start(recipe.keys.lora.start, recipe.adapters, recipe.model)
    start = recipe.keys.start
    if start.stage:
        source = load.of_checkpoint(place.of(start.stage), start.average)
    elif start.weights:
        source = _of_weights(start, recipe.model)
    else:
        return None
    if start.inflate:
        return inflate.inflated(recipe.model, source)
    if recipe.kind != "diffusion":
        return source
    return init.from_model(recipe.model, source, recipe.keys.seed)


def check(recipe: Recipe, place: Place, later: Collection[str], resumed: bool = False) -> None:
    """UserError for weights to start from that do not fit the stage; names and shapes are read, no tensors.

    recipe: of the stage. place: where the run keeps things. later: stages of the run that have not left weights yet.
    resumed: the stage goes on from its checkpoints, which need the model beneath adapters alone.
    """
    if recipe.keys.start.stage in later:
        return
    if recipe.adapters is not None or recipe.taught is not None:
        base = base_leaves(recipe, place)
        if resumed and "://" not in place.written:
            newest = orbax_stream.find(Path(place.of(recipe.name)))
            if newest is not None:
                check_base(recipe.name, orbax_stream.saved_config(newest), {CORNERS: corners(recipe, base)})
    if resumed:
        return
    leaves = leaves_of(recipe, place)
    if leaves is not None:
        _check_shapes(leaves.shapes, recipe, "what it starts from does not fit its model")


def corners(recipe: Recipe, base: Leaves) -> str:
    """What tells one model beneath adapters from another without reading it: names, shapes, and a corner of each leaf.

    recipe: of the stage. base: of `base_leaves`. 16 hex digits; of values as the stage holds them.
    """
    kind = "float32" if recipe.keys.lora.base_dtype == "float32" else "bfloat16"
    sums = hashlib.sha256()
    for path, shape in sorted(base.shapes.items()):
        values = base.read(path, tuple(slice(0, min(CORNER, size)) for size in shape))
        sums.update(f"{path}{shape}".encode() + values.astype(jnp.dtype(kind)).tobytes())
    return sums.hexdigest()[:16]


def check_base(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """UserError, status 2, where adapters would go on beside another model than they were trained on.

    name: of the stage. before: the config in its checkpoint. now: what is known of the model, by BASE and CORNERS;
    what an older checkpoint does not have is not compared.
    """
    if any(key in before and before[key] != value for key, value in now.items()):
        raise UserError(
            f"{name} goes on with its teacher or adapters of another model than `start` gives now: give that one again",
            status=2,
        )


def check_resumed(recipe: Recipe, folder: Path) -> None:
    """UserError where the checkpoints of a stage are of another model than its config. folder: of them, local."""
    newest = orbax_stream.find(folder)
    if newest is not None:
        mend = f"checkpoint {newest.parent} does not fit this config"
        _check_shapes(orbax_stream.open_leaves(newest).shapes, recipe, mend)


def _check_shapes(there: Mapping[tuple[str, ...], tuple[int, ...]], recipe: Recipe, what: str) -> None:
    wanted = weights.leaf_shapes(recipe.model)
    if recipe.adapters is not None:
        wanted = of_params(blank(recipe.model, recipe.adapters)).shapes
    if problems := shapes.differences(there, wanted):
        raise UserError(f"{what} ({shapes.listed(problems, 5)}): use the config it was made with", status=2)


def _of_weights(start: StartKeys, model_cfg: ModelConfig) -> Leaves:
    if Path(start.weights).is_dir() and orbax_stream.find(Path(start.weights)) is not None:
        return load.of_checkpoint(start.weights, start.average)
    like = inflate.image_config(model_cfg) if start.inflate else model_cfg
    source_cfg = models.config(models.family_of(model_cfg), **{**asdict(like), **start.config})
    return load.open_leaves(source_cfg, start.weights, layout=layout_named(start.layout, "start.layout"))


def put(leaves: Leaves, now: state.TrainState, shardings: Tree, freeze: Freeze) -> state.TrainState:
    """A fresh state with these parameters instead of its own.

    leaves: on disk. now, shardings: the state and where its arrays lie. freeze: what has no moving average.
    """
    params = load.place(leaves, shardings.params, jnp.float32)
    if now.ema is None:
        return now.replace(params=params)
    # The moving average starts at the same weights, in buffers of its own: both are donated.
    copy = jax.jit(lambda tree: jax.tree.map(lambda x: x + 0, tree), out_shardings=shardings.ema)
    return now.replace(params=params, ema=copy(freeze.trained(params)))
