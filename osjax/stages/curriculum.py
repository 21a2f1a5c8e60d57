"""A run as a list of stages: checked together before the first begins, finished ones skipped, in order."""

import contextlib
import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from osjax import atomic
from osjax.data import left_out
from osjax.data.buckets import pixels
from osjax.errors import usage
from osjax.parallel import exchange
from osjax.parallel.alone import alone
from osjax.parts import autoencoder, latent_scale
from osjax.parts import distill as lessons
from osjax.parts.diffusion import DiffusionRecipe
from osjax.parts.run import CONFIG, PINS, Recipe, Run
from osjax.sampling import distilled
from osjax.sampling import workdir as sampling_workdir
from osjax.sampling.distilled import Distilled
from osjax.sampling.workdir import TrainedModel
from osjax.stages import clip_table, data, preflight, stage
from osjax.stages.autoencoder import AutoencoderStage
from osjax.stages.diffusion import DiffusionStage
from osjax.stages.evaluation import sample_settings
from osjax.stages.trained import of_run
from osjax.training import goodput

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

    def check(self, stages: Collection[str] | None = None) -> None:
        """UserError, status 2, with all that would stop a run before its first step. stages: only these."""
        preflight.check(self.run, self.own, stages)
        for name, made in self.stages.items():
            if stages is None and made.recipe.keys.data.features and not preflight.is_finished(self.run, made.recipe):
                with usage():
                    self.stages[name].check_features(self.own)

    def train(self, options: stage.Options, each: Callable[[str], None] | None = None) -> None:
        """Bring every stage to its end. options: of the run. each: called with a stage's name when it is finished."""
        with self.alone("osjax train"):
            self._share()
            if self.run.pins and not jax.process_index():
                atomic.write_text(self.place.workdir / PINS, json.dumps(self.run.pins, indent=1) + "\n")
            if not jax.process_index():
                atomic.write_text(self.place.workdir / CONFIG, json.dumps(self.run.saved, indent=1) + "\n")
            with self._ledger(options.began) as ledger:
                options = replace(options, ledger=ledger)
                for name, made in self.stages.items():
                    self.tell_clips(made.recipe)
                    ledger.mark("prepare")
                    made.train(self.own, options)
                    ledger.tell(name, "prepare")  # what a stage does after its last step
                    if each is not None:
                        each(name)
                self._describe()
                ledger.write(finished=True)

    def _share(self) -> None:
        """See to it that all hosts see one store, and that what one host measured is known on all: workdirs may differ.

        UserError, status 2, where they do not.
        """
        if "://" not in self.place.checkpoints:
            mend = "name a folder for checkpoints that all hosts see, by config.checkpoints"
            exchange.check_shared(Path(self.place.checkpoints), mend)
        for name, recipe in self.run.stages.items():
            if preflight.is_finished(self.run, recipe):  # else it may be of another run
                latent_scale.share(self.place.workdir / name)
            elif recipe.keys.data.cached and not recipe.keys.data.features:
                mend = (
                    f"set data.cached of {name} to False, or data.features to what `osjax encode` made where all see it"
                )
                exchange.check_shared(self.place.workdir, mend)

    @contextlib.contextmanager
    def _ledger(self, began: float | None) -> Iterator[goodput.Ledger]:
        """Where the time goes, on the first process in a file."""
        ledger = goodput.Ledger(None if jax.process_index() else self.place.workdir / goodput.FILE, began)
        ledger.tell("", "start")
        try:
            yield ledger
        finally:
            ledger.close()

    def clips(self, recipe: Recipe) -> list[str]:
        """Which clips a stage trains on, as lines of a table; none for a finished one. recipe: of the stage."""
        if preflight.is_finished(self.run, recipe):
            return []
        unmade = data.OwnData(self.own.source, self.own.cfg, self.place.workdir, renders=False)
        source = data.training_source(recipe.keys.data, unmade)
        return clip_table.lines(source, recipe.table, recipe.keys.data, recipe.keys.seed)

    def tell_clips(self, recipe: Recipe) -> None:
        """Print the table of a stage's clips, and keep it in the stage's folder for reports."""
        if jax.process_index() or not (lines := self.clips(recipe)):
            return
        print("\n".join(f"{recipe.name}: {line}" for line in lines), flush=True)
        folder = self.place.workdir / recipe.name
        folder.mkdir(parents=True, exist_ok=True)
        atomic.write_text(folder / left_out.TABLE, "\n".join(lines) + "\n")

    def _describe(self) -> None:
        """Write model.json: what `osjax sample` and `osjax eval recon` find in the workdir."""
        if self.place.written != str(self.place.workdir):  # paths in model.json never lead out of the workdir
            return
        of_video = list(self.run.diffusion().values())
        if not of_video:
            last = list(self.run.stages.values())[-1]
            part = autoencoder.AutoencoderPart(last.model, last.module.dtype, stage=last.name)
            scale = autoencoder.scale_of(part, self.place)
            sampling_workdir.save(self.place.workdir, sampling_workdir.Workdir(None, trained(last), None, scale))
            return
        last = of_video[-1]
        ae_stage = last.autoencoder.stage
        sampling_workdir.save(
            self.place.workdir,
            sampling_workdir.Workdir(
                self._denoiser(last),
                trained(self.run.stages[ae_stage]) if ae_stage else None,
                last.text.own,
                autoencoder.scale_of(last.autoencoder, self.place),
                sample_settings(last),
                files_of(last),
                of_run(self.run, self.own),
                distilled_of(self.run, last),
            ),
        )

    def _denoiser(self, last: DiffusionRecipe) -> TrainedModel:
        if last.adapters is None:
            return trained(last)
        start, adapter = last.keys.start, f"{last.name}/checkpoints"
        if not start.stage:
            return TrainedModel(last.model, None, adapter=adapter)
        model = replace(trained(self.run.stages[start.stage]), config=last.model)
        return replace(model, averaged=model.averaged and start.average, adapter=adapter)


def distilled_of(run: Run, recipe: DiffusionRecipe) -> Distilled | None:
    """What a stage's model can be asked for, where it learned from a teacher. run: with the stages before it."""
    if recipe.taught is None:
        return None
    start, before = recipe.keys.start.stage, None
    if start and run.stages[start].kind == "diffusion":
        before = distilled_of(run, run.stages[start])
    return distilled.of_json(lessons.said(recipe.keys.distill, recipe.taught, before and before.to_json()))


def files_of(recipe: DiffusionRecipe) -> dict[str, dict[str, Any]]:
    """What a stage takes from files that a sampler needs, as `Workdir.files` has it. recipe: of the stage."""
    start, given, words = recipe.keys.start, recipe.keys.autoencoder, recipe.text
    files: dict[str, dict[str, Any]] = {}
    if recipe.adapters is not None and start.weights:
        files["model"] = {"weights": _absolute(start.weights), "layout": start.layout, "average": start.average}
    if given.weights:
        own = {"family": given.family, "config": dict(given.config), "dtype": given.dtype}
        files["autoencoder"] = {"weights": _absolute(given.weights), **own}
    if words.t5:
        files["text"] = {"t5": _absolute(words.t5), "clip": _absolute(words.clip)}
    return files


def _absolute(path: str) -> str:
    return str(Path(path).absolute())


def trained(recipe: Recipe) -> TrainedModel:
    """The model that a stage leaves in its workdir."""
    return TrainedModel(recipe.model, f"{recipe.name}/checkpoints", recipe.keys.optimizer.ema_decay > 0)


def summary(run: Run) -> list[str]:
    """What a run would do, a line a stage."""
    lines = []
    for name, recipe in run.stages.items():
        start, table = recipe.keys.start, recipe.table
        begin = start.stage or start.weights or "new weights"
        rows = [(r, frames, rule.batch_size) for r, rules in table.rules.items() for frames, rule in rules.items()]
        rows.sort(key=lambda row: (pixels(row[0]), row[1]))
        shown = ", ".join(f"{r} x {frames} (batch {batch})" for r, frames, batch in rows[:4])
        more = f", {len(rows) - 4} more" if len(rows) > 4 else ""
        lines.append(f"{name}: {recipe.kind}, {recipe.keys.steps} steps from {begin}; {shown}{more}")
    return lines
