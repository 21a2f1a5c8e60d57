"""A run as a list of stages: checked together before the first begins, finished ones skipped, in order."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace

from osjax.parallel.alone import alone
from osjax.parts import autoencoder
from osjax.parts.diffusion import DiffusionRecipe
from osjax.parts.run import Recipe, Run
from osjax.sampling import workdir as sampling_workdir
from osjax.sampling.workdir import TrainedModel
from osjax.stages import data, stage
from osjax.stages.autoencoder import AutoencoderStage
from osjax.stages.diffusion import DiffusionStage, sample_settings

log = logging.getLogger(__name__)
KINDS = {"autoencoder": AutoencoderStage, "diffusion": DiffusionStage}


class Curriculum:
    """All stages of a checked run, and the data that it brings for those that name none."""

    def __init__(self, run: Run):
        self.run, self.place = run, run.place
        self.own = data.OwnData(run.keys.source, run.keys.clips, run.place.workdir)
        self.stages = {name: KINDS[recipe.kind](recipe, run.place) for name, recipe in run.stages.items()}
        self._alone = False

    @contextlib.contextmanager
    def alone(self, doing: str) -> Iterator[None]:
        """A block in which no other run writes to this one's folders. doing: the command.

        UserError, status 2, while one does.
        """
        if self._alone:  # the demo's, around that of its training
            yield
            return
        elsewhere = [self.run.keys.checkpoints] if self.run.keys.checkpoints else []
        with alone([self.place.workdir, *elsewhere], doing):
            self._alone = True
            try:
                yield
            finally:
                self._alone = False

    def train(self, options: stage.Options, each: Callable[[str], None] | None = None) -> None:
        """Bring every stage to its end. options: of the run. each: called with a stage's name when it is finished."""
        for made in self.stages.values():
            if isinstance(made, DiffusionStage):
                made.check_devices()
        with self.alone("osjax train"):
            for name, made in self.stages.items():
                made.train(self.own, options)
                if each is not None:
                    each(name)
            self._describe()

    def _describe(self) -> None:
        """Write model.json: what `osjax sample` and `osjax eval recon` find in the workdir."""
        if self.run.keys.checkpoints:  # paths in model.json never lead out of the workdir
            return
        of_video = list(self.run.diffusion().values())
        if not of_video:
            last = list(self.run.stages.values())[-1]
            part = autoencoder.AutoencoderPart(last.model, last.module.dtype, stage=last.name)
            scale = autoencoder.scale_of(part, self.place)
            sampling_workdir.save(self.place.workdir, sampling_workdir.Workdir(None, trained(last), None, scale))
            return
        last = of_video[-1]
        if last.adapters is not None and not last.keys.start.stage:
            log.warning("sample with --config.model.weights=%s and its adapter", last.keys.start.weights)
            return
        ae_stage = last.autoencoder.stage
        sampling_workdir.save(
            self.place.workdir,
            sampling_workdir.Workdir(
                self._denoiser(last),
                trained(self.run.stages[ae_stage]) if ae_stage else None,
                last.text.own,
                autoencoder.scale_of(last.autoencoder, self.place),
                sample_settings(last),
            ),
        )

    def _denoiser(self, last: DiffusionRecipe) -> TrainedModel:
        if last.adapters is None:
            return trained(last)
        start = last.keys.start
        model = replace(trained(self.run.stages[start.stage]), config=last.model)
        return replace(model, averaged=model.averaged and start.average, adapter=f"{last.name}/checkpoints")


def trained(recipe: Recipe) -> TrainedModel:
    """The model that a stage leaves in its workdir."""
    return TrainedModel(recipe.model, f"{recipe.name}/checkpoints", recipe.keys.optimizer.ema_decay > 0)


def summary(run: Run) -> list[str]:
    """What a run would do, a line a stage."""
    lines = []
    for name, recipe in run.stages.items():
        start, rows = recipe.keys.start, recipe.keys.data.buckets
        begin = start.stage or start.weights or "new weights"
        shown = ", ".join(f"{r} x {frames} (batch {batch})" for r, frames, _, batch in rows[:4])
        more = f", {len(rows) - 4} more" if len(rows) > 4 else ""
        lines.append(f"{name}: {recipe.kind}, {recipe.keys.steps} steps from {begin}; {shown}{more}")
    return lines
