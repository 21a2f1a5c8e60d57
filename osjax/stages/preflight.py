"""What a run would open, opened before it begins: data, weights, tokenizers and folders. No tensor is read.

A run and its dry run ask the same here, so what one accepts the other does. What is wrong is told together.
"""

import errno
import os
from collections.abc import Collection
from pathlib import Path

import jax
from etils import epath

from osjax import object_store
from osjax.errors import Gathered, UserError
from osjax.models import build
from osjax.object_store import is_url, reaching
from osjax.parallel import sharding
from osjax.parts import autoencoder
from osjax.parts import run as runs
from osjax.parts.run import Recipe, Run
from osjax.stages import data, start
from osjax.training import copies
from osjax.weights import load


def check(run: Run, own: data.OwnData, stages: Collection[str] | None = None) -> None:
    """UserError, status 2, with all that would stop a run before its first step.

    own: the run's data, for stages that name none; clips that are not rendered yet are reckoned with. stages: only
    these. Finished stages are not looked at: they open nothing.
    """
    finished = {name for name, recipe in run.stages.items() if is_finished(run, recipe)}
    resumed = {name for name, recipe in run.stages.items() if _has_begun(run, recipe)}
    problems, missing = Gathered(), runs.missing_inputs(run, finished, resumed)
    problems.add(missing)
    with problems:
        _check_folder(run.place.workdir)
    if run.place.local is not None:
        with problems:
            _check_folder(run.place.local, each_host=True)
    later: set[str] = set()
    for name, recipe in run.stages.items():
        if name in finished and not _is_here(run, recipe):
            later.add(name)  # its weights are brought from the store once the run begins
        if name in finished or name not in (run.stages if stages is None else stages):
            continue
        problems.prefix = f"{name}: "
        lost = {line.removeprefix(problems.prefix).split()[0] for line in missing if line.startswith(problems.prefix)}
        _check_stage(run, recipe, own, problems, later, lost)
        later.add(name)
    problems.end()


def is_finished(run: Run, recipe: Recipe) -> bool:
    """Whether a stage of a run has its last checkpoint, here or in the store that has copies."""
    return _is_here(run, recipe) or recipe.keys.steps in _copied(run, recipe)


def _is_here(run: Run, recipe: Recipe) -> bool:
    folder = run.place.of(recipe.name)
    with reaching(folder):
        return (folder / str(recipe.keys.steps)).exists()


def _copied(run: Run, recipe: Recipe) -> list[int]:
    url = run.place.copy_of(recipe.name)
    return copies.steps(url) if url else []


def _has_begun(run: Run, recipe: Recipe) -> bool:
    """Whether a stage of a run has any checkpoint, from which it goes on."""
    folder = run.place.of(recipe.name)
    with reaching(folder):
        here = folder.exists() and any(path.name.isdigit() for path in folder.iterdir())
    return here or bool(_copied(run, recipe))


def _check_stage(
    run: Run, recipe: Recipe, own: data.OwnData, problems: Gathered, later: Collection[str], lost: Collection[str]
) -> None:
    """Gather what is wrong with a stage. later: stages without weights yet. lost: keys whose paths are not there."""
    keys = recipe.keys
    with problems:
        with sharding.under(recipe.mesh):
            if recipe.kind == "diffusion":
                build(recipe.model).check_attention()
    if not lost & {"start.weights", "lora.start"}:
        with problems:
            start.check(recipe, run.place, later, _has_begun(run, recipe))
    if "://" not in run.place.written:
        with problems:
            start.check_resumed(recipe, Path(run.place.of(recipe.name)))
    with problems:
        _check_folder(run.place.of(recipe.name))
    if url := run.place.copy_of(recipe.name):
        with problems:
            _check_folder(url)
    if "data.source" not in lost:
        with problems:
            data.check_batches(data.training_source, recipe.table, keys.data, own, keys.seed)
    if keys.evaluate.every and "data.held_out" not in lost:
        with problems:
            data.check_held_out(keys.data, own)
            if "data.source" not in lost:
                data.check_batches(data.held_out_source, recipe.table, keys.data, own, keys.seed)
    if recipe.kind == "diffusion":
        if "autoencoder.weights" not in lost:
            with problems:
                autoencoder.check(recipe.autoencoder)
        if not lost & {"text.t5", "text.clip"}:
            with problems:
                recipe.text.check()
        return
    for group in ("distance", "teacher"):
        made = getattr(recipe, group)
        if made is not None and made.weights and Path(made.weights).exists():
            with problems:
                load.open_leaves(made.cfg, made.weights)


def _check_folder(folder: epath.PathLike, each_host: bool = False) -> None:
    """UserError where files cannot be written to a folder: one is, and deleted with the folders that it needed.

    each_host: the folder is on the disk of each; else one process is enough, and many would be in each other's way.
    """
    if jax.process_index() and not each_host:
        return
    if is_url(folder):
        probe = f"{str(folder).rstrip('/')}/.osjax.{os.getpid()}.part"
        object_store.write(probe, b"written to see whether it can be\n")
        object_store.remove(probe)
        return
    if is_url(folder):
        probe = f"{str(folder).rstrip('/')}/.osjax.{os.getpid()}.part"
        object_store.write(probe, b"written to see whether it can be\n")
        object_store.remove(probe)
        return
    folder = epath.Path(folder)
    made = [folder, *folder.parents]
    made = made[: next((i for i, parent in enumerate(made) if parent.exists()), len(made))]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            probe = folder / f".osjax.{os.getpid()}.part"
            probe.write_text("written to see whether it can be\n")
            probe.unlink()
        finally:
            for new in made:
                new.rmdir()
    except Exception as error:  # file systems of URLs have errors of their own
        if isinstance(error, OSError) and error.errno == errno.ENOTEMPTY:  # somebody else uses it by now
            return
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0] or type(error).__name__
        raise UserError(f"{folder} cannot be written to ({reason}): give another folder", status=2) from error
