"""Whether the video model of a run fits the devices that it runs on, by arithmetic and before anything is read."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax

from osjax import models
from osjax.errors import UserError, usage
from osjax.models import video_flops
from osjax.models.mmdit.config import MMDiTConfig
from osjax.parallel import device_memory, rules
from osjax.parts.diffusion import DiffusionRecipe
from osjax.parts.run import Run
from osjax.planning import memory, program
from osjax.planning.stage import FULL, Stage
from osjax.stages import preflight
from osjax.stages.stage import fresh_state
from osjax.training import state

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Need:
    """What a stage needs of one device, in bytes, and how many parameters train.

    state: parameters, moments, averages and, beneath adapters, the model: exact. peak: with the longest batch, by the
    arithmetic of `planning.memory`; None for a family that it does not know. has: what the device has.
    """

    trained: int
    state: int
    peak: int | None
    has: int

    @property
    def says(self) -> str:
        """A line for a dry run."""
        at_work = "" if self.peak is None else f", about {_gb(self.peak)} at work"
        return f"{self.trained:,} parameters train; {_gb(self.state)} of state{at_work}, of {_gb(self.has)} a device"


def of_run(run: Run) -> dict[str, Need]:
    """What the stages of the video model that are not finished need, by name. run: on devices that are here."""
    return {name: of_recipe(recipe) for name, recipe in _unfinished(run)}


@usage()
def check(run: Run) -> None:
    """UserError, status 2, for a stage whose state alone is more than a device has. The log warns of the rest."""
    for name, need in of_run(run).items():
        if need.state > need.has:
            raise UserError(
                f"{name}: the state of training takes {_gb(need.state)} of each device, which has {_gb(need.has)}: "
                "use more devices (mesh.fsdp), or train adapters (lora.rank, lora.base_dtype=int8)"
            )
        if need.peak is not None and need.peak > FULL * need.has:
            log.warning(
                "%s: by arithmetic the longest batch takes %s of each device, which has %s: lower its batch, set "
                "model.remat=full, or use more devices",
                *(name, _gb(need.peak), _gb(need.has)),
            )


def of_recipe(recipe: DiffusionRecipe) -> Need:
    """What a stage of the video model needs of each device of its mesh. recipe: of the stage."""
    _, fresh = fresh_state(recipe, state.create, rules.TRANSFORMER)
    held = program.bytes_per_device(program.placed(nn.unbox(fresh.boxed), fresh.shardings))
    if recipe.adapters is not None:
        beneath, _ = program.base(recipe.model, recipe.adapters, recipe.keys.lora.base_dtype, recipe.mesh)
        held += program.bytes_per_device(beneath)
        trained = Stage(recipe, None).trained
    else:
        trained = _count(recipe.optimizer.freeze.trained(models.abstract_params(recipe.model)))
    has = min(device_memory.bytes_of(device) for device in recipe.mesh.local_devices)
    return Need(trained, held, _peak(recipe, trained, held), has)


def _peak(recipe: DiffusionRecipe, trained: int, held: int) -> int | None:
    if not isinstance(recipe.model, MMDiTConfig):
        return None
    stage = Stage(recipe, None)
    of_all, peaks = (recipe.model, trained, held, stage.ways), []
    for bucket in stage.buckets():
        tokens = video_flops.tokens(recipe.model, stage.batch(bucket)) // bucket.rows
        peaks.append(memory.estimate(*of_all, bucket.rows, tokens, recipe.adapters is not None).peak)
    return max(peaks)


def _unfinished(run: Run) -> Iterator[tuple[str, DiffusionRecipe]]:
    for name, recipe in run.diffusion().items():
        if not preflight.is_finished(run, recipe):
            yield name, recipe


def _count(tree: Any) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
