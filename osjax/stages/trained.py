"""What a run trained on, for `model.json`: sizes, words, the trigger word, and what tells its data set from others."""

from collections.abc import Iterable
from pathlib import Path

from osjax import json_file
from osjax.conditioning.text import words_of
from osjax.curation import folder
from osjax.data.dataset import Records
from osjax.errors import UserError
from osjax.parts.diffusion import DiffusionRecipe
from osjax.parts.run import Run
from osjax.sampling import workdir
from osjax.sampling.trained import Trained
from osjax.stages import data

MOST = 20_000  # clips whose captions are read for their words
MANY = 5_000  # words that are kept; with more, no prompt is likely to have a new one


def of_run(run: Run, own: data.OwnData) -> Trained:
    """What the last stage of the video model trained on, and the words of all of them. run, own: the run, its data.

    What is not there any more is left out: nothing is rendered for this, and no finished run fails for it.
    """
    stages = list(run.diffusion().values())
    last, source = stages[-1], _source(stages[-1], own)
    shapes = sorted({(T, H, W) for _, T, H, W, _ in last.table.every_shape()})
    told = data.identity(source) if source is not None else {}
    return Trained(
        tuple(shapes),
        _words(stages, own),
        trigger_of(run.place.workdir, last.keys.data.source),
        told.get("clips", 0),
        told.get("data_set", ""),
    )


def _source(recipe: DiffusionRecipe, own: data.OwnData) -> data.Source | None:
    """All clips of a stage, those kept for its evaluation too; None where they are not there any more."""
    unmade = data.OwnData(own.source, own.cfg, own.folder.parent, renders=False)
    try:
        return data.whole_source(recipe.keys.data, unmade)
    except UserError:
        return None


def _words(stages: Iterable[DiffusionRecipe], own: data.OwnData) -> tuple[str, ...]:
    """All words that the built-in encoder met; none where another one reads, and where too much would be read."""
    words: set[str] = set()
    for recipe in stages:
        source = _source(recipe, own)
        if recipe.text.own is None or not isinstance(source, Records) or len(source) > MOST:
            return ()
        if recipe.keys.start.weights:
            before = _before(Path(recipe.keys.start.weights))
            if not before:
                return ()
            words.update(before)
        for record in source:
            words.update(words_of(record["text"].decode("utf-8", "replace")))
    return tuple(sorted(words)) if len(words) <= MANY else ()


def _before(weights: Path) -> tuple[str, ...]:
    """The words of the run whose checkpoints a stage starts from; none where that does not say."""
    for place in (weights, *weights.absolute().parents[:3]):
        if (place / workdir.FILE).is_file():
            try:
                return workdir.read(place).trained.words
            except UserError:
                return ()
    return ()


def trigger_of(place: Path, source: str | None) -> str:
    """The trigger word that `osjax finetune` put into captions; empty where it made none of the run's data.

    place: the run's workdir. source: the data set that was trained on.
    """
    made = place / "clips"
    if not (source and Path(source).absolute().is_relative_to(made.absolute())):
        return ""
    try:
        return str(json_file.read(made / folder.MADE_FROM, "it is made anew", keys=("words",))["words"]["trigger"])
    except (UserError, LookupError, TypeError):
        return ""
