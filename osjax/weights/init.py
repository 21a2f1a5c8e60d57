"""One model as the start of another: FLUX.1-dev of the video model, Open-Sora v2 of the deep-compression model.

Source: Open-Sora 2.0 report, sections 4.1.1 (FLUX) and 4.3.3 (deep compression: new input and output layers).
"""

from collections.abc import Mapping
from types import ModuleType

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict

from osjax import models, weights
from osjax.errors import UserError
from osjax.models import shapes
from osjax.models.shapes import Shape
from osjax.types import ModelConfig
from osjax.weights.leaves import Leaves
from osjax.weights.rules import Path, Window


def from_model(cfg: ModelConfig, source: Leaves, seed: int = 0) -> Leaves:
    """Leaves of the model `cfg`, copied from those of another model of its family, `source`.


    seed: of layers that are made anew. Import has already split fused projections and permuted rotary pairs
    (`weights.FLUX`). The family's weight map says which layers may differ (`BOUNDARY`) and which are left out
    (`DROPPED`); a family that says nothing takes the leaves as they are, and whoever places them compares the shapes.
    UserError where anything else differs.
    """
    family = weights.family_module(models.family_of(cfg))
    if not hasattr(family, "BOUNDARY"):
        return source
    wanted = weights.leaf_shapes(cfg)
    fresh_layers = [layer for layer in family.BOUNDARY if _under(layer, wanted) != _under(layer, source.shapes)]
    fresh = {path for layer in fresh_layers for path in _under(layer, wanted)}
    _check(wanted, source, fresh, family)
    made = _initial(cfg, fresh, seed)
    dtype = np.dtype(source.dtypes[max(source.shapes, key=lambda path: np.prod(source.shapes[path]))])

    def read(path: Path, window: Window) -> np.ndarray:
        return made[path][window].astype(dtype) if path in fresh else source.read(path, window)

    return Leaves(wanted, {path: dtype if path in fresh else source.dtypes[path] for path in wanted}, read)


def _under(layer: Path, table: Mapping[Path, Shape]) -> dict[Path, Shape]:
    return {path: shape for path, shape in table.items() if path[: len(layer)] == layer}


def _check(wanted: Mapping[Path, Shape], source: Leaves, fresh: set[Path], family: ModuleType) -> None:
    dropped = {path for layer in family.DROPPED for path in _under(layer, source.shapes) if path not in wanted}
    dropped |= {path for layer in family.BOUNDARY for path in _under(layer, source.shapes)}
    free = fresh | dropped
    there, model = ({p: s for p, s in table.items() if p not in free} for table in (source.shapes, wanted))
    if problems := shapes.differences(there, model):
        raise UserError(f"one model cannot start from the other: {shapes.listed(problems, 5)}. Check both configs.")


def _initial(cfg: ModelConfig, paths: set[Path], seed: int) -> dict[Path, np.ndarray]:
    """What the model initialises these leaves with; the compiler drops the making of all others."""

    def make(key: jax.Array) -> dict[str, jax.Array]:
        params = flatten_dict(nn.unbox(models.init_params(cfg, key)))
        return {"/".join(path): params[path] for path in paths}

    made = jax.jit(make)(jax.random.key(seed)) if paths else {}
    return {path: np.asarray(made["/".join(path)]) for path in paths}
