"""One model as the start of another: FLUX.1-dev of the video model, Open-Sora v2 of the deep-compression model.

Source: Open-Sora 2.0 report, sections 4.1.1 (FLUX) and 4.3.3 (deep compression: new input and output layers).
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict

from osjax import models, weights
from osjax.errors import UserError
from osjax.models import shapes
from osjax.models.mmdit.config import MMDiTConfig
from osjax.models.shapes import Shape
from osjax.weights.leaves import Leaves
from osjax.weights.rules import Path, Window

# Layers between tokens and the model's width: taken over where they fit, else as the model initialises them (the layer
# of the condition and the one at the end with zeros).
BOUNDARY: tuple[Path, ...] = (("img_in",), ("cond_in",), ("final_layer", "linear"))
DROPPED: tuple[Path, ...] = (("guidance_in",),)  # of a distilled model; the video model learns guidance by dropout


def from_model(cfg: MMDiTConfig, source: Leaves, seed: int = 0) -> Leaves:
    """The leaves of the MMDiT `cfg`, copied from `source`, those of another MMDiT. seed: of layers that are made anew.

    Import has already split fused projections and permuted rotary pairs (`weights.FLUX`).
    UserError where anything but the layers at both ends differs.
    """
    wanted = weights.leaf_shapes(cfg)
    fresh_layers = [layer for layer in BOUNDARY if _under(layer, wanted) != _under(layer, source.shapes)]
    fresh = {path for layer in fresh_layers for path in _under(layer, wanted)}
    _check(wanted, source, fresh)
    made = _initial(cfg, fresh, seed)
    dtype = np.dtype(source.dtypes[max(source.shapes, key=lambda path: np.prod(source.shapes[path]))])

    def read(path: Path, window: Window) -> np.ndarray:
        return made[path][window].astype(dtype) if path in fresh else source.read(path, window)

    return Leaves(wanted, {path: dtype if path in fresh else source.dtypes[path] for path in wanted}, read)


def _under(layer: Path, table: Mapping[Path, Shape]) -> dict[Path, Shape]:
    return {path: shape for path, shape in table.items() if path[: len(layer)] == layer}


def _check(wanted: Mapping[Path, Shape], source: Leaves, fresh: set[Path]) -> None:
    dropped = {path for layer in DROPPED for path in _under(layer, source.shapes) if path not in wanted}
    dropped |= {path for layer in BOUNDARY for path in _under(layer, source.shapes)}
    free = fresh | dropped
    there, model = ({p: s for p, s in table.items() if p not in free} for table in (source.shapes, wanted))
    if problems := shapes.differences(there, model):
        raise UserError(f"one model cannot start from the other: {shapes.listed(problems, 5)}. Check both configs.")


def _initial(cfg: MMDiTConfig, paths: set[Path], seed: int) -> dict[Path, np.ndarray]:
    """What the model initialises these leaves with; the compiler drops the making of all others."""

    def make(key: jax.Array) -> dict[str, jax.Array]:
        params = flatten_dict(nn.unbox(models.init_params(cfg, key)))
        return {"/".join(path): params[path] for path in paths}

    made = jax.jit(make)(jax.random.key(seed)) if paths else {}
    return {path: np.asarray(made["/".join(path)]) for path in paths}
