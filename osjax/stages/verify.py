"""Is a run what it was? Seals, data sets, metrics, and a step of every stage done twice; nothing is mended.

What is wrong is a sentence each; what cannot be said is told apart, as of a checkpoint without a seal.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from osjax import integrity, json_file
from osjax.data import fingerprints, index
from osjax.data.remote import is_url
from osjax.errors import UserError
from osjax.parts import latent_scale
from osjax.parts.run import Recipe, Run
from osjax.stages.curriculum import Curriculum
from osjax.training import metrics


@dataclass(frozen=True)
class Told:
    """A sentence about a run. wrong: whether it is of something that is not as it should be."""

    text: str
    wrong: bool = False


def all_of(run: Run, curriculum: Curriculum, replay: bool = True) -> Iterator[Told]:
    """Everything that is looked at, as it is found.

    run, curriculum: the run. replay: do the step after each stage's newest checkpoint twice, too.
    """
    for problem in metrics.problems(run.place.workdir / "metrics.jsonl"):
        yield Told(problem, wrong=True)
    yield from _data_sets(run)
    for name, recipe in run.stages.items():
        told = list(_checkpoints(run, recipe))
        yield from told
        if not replay or any(one.wrong for one in told) or not _steps(run, recipe):
            continue  # opening a damaged one would set it aside
        try:
            wrong = curriculum.stages[name].replay(curriculum.own)
            yield (
                Told(f"{name}: {wrong}", wrong=True) if wrong else Told(f"{name}: a step done twice has the same bits")
            )
        except UserError as error:
            yield Told(f"{name}: no step could be done ({error})", wrong=True)


def _steps(run: Run, recipe: Recipe) -> list[int]:
    folder = run.place.of(recipe.name)
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) if folder.exists() else []


def _checkpoints(run: Run, recipe: Recipe) -> Iterator[Told]:
    """Of a stage: every checkpoint against its seal, and the file of its latents' statistics."""
    folder, sealed = run.place.of(recipe.name), 0
    for step in _steps(run, recipe):
        seal = integrity.seal_of(folder / str(step))
        if not seal.exists():
            yield Told(f"{folder / str(step)} has no seal, as one has that was just written: it is not verified")
            continue
        try:
            integrity.read_seal(seal)
            reason = integrity.damage(folder / str(step))
        except (UserError, OSError) as error:
            reason = str(error)
        if reason:
            yield Told(f"{folder / str(step)} is damaged: {reason}", wrong=True)
        sealed += not reason
    yield Told(f"{recipe.name}: {sealed} checkpoints are as their seals have them")
    scale = run.place.workdir / recipe.name / latent_scale.FILE
    if scale.exists():
        try:
            latent_scale.read(scale.parent)
        except UserError as error:
            yield Told(str(error), wrong=True)


def _data_sets(run: Run) -> Iterator[Told]:
    """Data sets and features of the run: those that its config names, and those in its workdir."""
    named = {run.keys.source}
    for recipe in run.stages.values():
        data = recipe.keys.data
        named |= {data.source, data.held_out, getattr(data, "features", None)}
    folders: set[Path] = set()
    for path in sorted(filter(None, named)):
        if is_url(path):
            yield Told(f"{path} is not on this machine: it is not verified")
        else:
            folders |= {file.parent for file in Path(path).rglob(fingerprints.FILE)}
    folders |= {file.parent for file in run.place.workdir.rglob(fingerprints.FILE)}
    for folder in sorted(folders):
        try:
            yield Told(f"{folder}: {fingerprints.check(folder, index.FILE)} files are as their fingerprints have them")
        except (UserError, OSError) as error:
            yield Told(str(error), wrong=True)
    for path in sorted(run.place.workdir.rglob("done.json")):
        try:
            json_file.read(path, "delete its folder, and it is made again")
        except UserError as error:
            yield Told(str(error), wrong=True)
