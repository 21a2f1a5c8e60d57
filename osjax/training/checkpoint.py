"""Checkpoints: one asynchronous Orbax composite of state, moving average, data iterator and config.

The only module that knows Orbax. A checkpoint counts when Orbax has committed it and its files are what they were
then (`integrity.py`); half-written ones are not seen, damaged ones are set aside in favour of older ones.
"""

import contextlib
import logging
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

import osjax
from osjax import integrity
from osjax.errors import UserError
from osjax.models import shapes
from osjax.parallel import exchange
from osjax.training import orbax_noise
from osjax.training.freeze import fill, like
from osjax.training.state import TrainState
from osjax.types import Json, Tree

log = logging.getLogger(__name__)
LIBRARIES = ("jax", "flax", "optax", "orbax-checkpoint", "grain")
ARRAYS = ("state", "params", "ema")  # items of trees of arrays
TEXTS = ("data", "config", "versions")  # items of JSON
SLICE = 2**20  # bytes
TRIES = 5
HALF_MADE = ".orbax-checkpoint-tmp"  # in the name of a folder that Orbax is writing


class Misfit(UserError):
    """A checkpoint that reads, but is of another model."""


class Checkpoints:
    """Checkpoints of one stage in one folder. Close it: closing waits for writes under way.

    folder: a local path, or gs:// where etils and Orbax can reach it. keep: how many of the newest stay.
    keep_every: steps whose multiples stay for good (0: none).
    Opening verifies the newest: damaged ones are renamed to N.damaged, loudly, until a sound one is the newest.
    """

    def __init__(self, folder: epath.PathLike, keep: int = 2, keep_every: int = 0):
        self.folder = _absolute(folder)
        # Beside the folder and not in it: what is in it belongs to Orbax, which removes old checkpoints by itself.
        self._seals = integrity.seal_of(self.folder / "0").parent
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            keep_period=keep_every or None,
            enable_async_checkpointing=True,
            # Made in the background, folders that cannot be made leave threads behind which wait for them for twenty
            # minutes, and the process with them.
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
        )
        handlers = {item: _array_handler() for item in ARRAYS}
        handlers |= {item: ocp.JsonCheckpointHandler() for item in TEXTS}
        orbax_noise.hush()
        self._manager = ocp.CheckpointManager(self.folder, options=options, item_handlers=handlers)
        self._sealing: threading.Thread | None = None
        self._set_damaged_aside()

    @property
    def signs(self) -> Path | None:
        """Folder for signs of life of the processes that save here; None on an object store."""
        return None if "://" in str(self.folder) else Path(self.folder).with_name(f"{self.folder.name}.alive")

    def latest_step(self) -> int | None:
        """The step of the newest complete checkpoint; None where there is none."""
        return self._manager.latest_step()

    def _seal_in_background(self, step: int) -> None:
        """Seal the checkpoint under way as soon as it is in place, without holding up training."""
        # A daemon, so that a run that fails can end: a checkpoint without a seal is complete all the same.
        self._sealing = threading.Thread(target=self._seal_new, args=(step,), name="seal", daemon=True)
        self._sealing.start()

    def _seal_new(self, step: int) -> None:
        while self._manager.is_saving_in_progress():  # its own wait belongs to the thread that saves
            time.sleep(0.1)
        index, count = jax.process_index(), jax.process_count()
        try:
            complete = {p.name for p in self.folder.iterdir() if p.name.isdigit()} if self.folder.exists() else set()
            sealed = {p.stem: p for p in self._seals.iterdir() if p.suffix == ".json"} if self._seals.exists() else {}
        except OSError as error:  # the folder was lost between the question and the answer; saving tells of it
            log.info("checkpoints in %s are not sealed: %s", self.folder, error)
            return
        for name in complete - sealed.keys() if index == 0 else complete & {str(step)}:
            try:
                integrity.write_seal(self.folder / name, index, count if name == str(step) else 1)
            except OSError as error:  # removed by now, or a full disk: unsealed is still complete
                log.info("checkpoint %s is not sealed: %s", name, error)
        for name in sealed.keys() - complete if index == 0 else ():
            sealed[name].unlink(missing_ok=True)

    def _set_damaged_aside(self) -> None:
        while (step := self._manager.latest_step()) is not None:
            try:
                index, count = jax.process_index(), jax.process_count()
                reason = integrity.damage(self.folder / str(step), index=index, count=count)
            except OSError as error:
                reason = str(error)
            # Each reads its part and all go by what all saw: if they chose different checkpoints, each would wait for
            # ever in a restore that the others are not in.
            reason = next(filter(None, exchange.of_all(reason)), None)
            if reason is None:
                return
            self._set_aside(step, reason)

    def _set_aside(self, step: int, reason: str) -> None:
        """Rename a damaged checkpoint so that it is kept but never read; the one before it becomes the newest."""
        log.warning("checkpoint %s/%d is set aside as %d.damaged: %s", self.folder, step, step, reason)
        if jax.process_index() == 0:
            aside = self.folder / f"{step}.damaged"
            if aside.exists():
                aside.rmtree()
            (self.folder / str(step)).rename(aside)
            (self._seals / f"{step}.json").unlink(missing_ok=True)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(f"checkpoint {step} set aside")
        self._manager.reload()  # Orbax keeps its own list of steps

    def save(self, step: int, state: TrainState, data: Json | None, config: Json) -> None:
        """Start writing; returns once the arrays are copied off the devices. A step that is there already is kept.

        state: on the devices. data: the data iterator's state, and config: the stage's, both as JSON values.
        """
        if step == self.latest_step():
            return
        # Five or six items, each of which can be read alone: a sampler reads `ema` or `params`, a next stage `params`.
        items = {
            "state": ocp.args.PyTreeSave(_without_weights(state)),
            "params": ocp.args.PyTreeSave(state.params),
            "data": ocp.args.JsonSave(data or {}),
            "config": ocp.args.JsonSave(config),
            "versions": ocp.args.JsonSave(_versions()),
        }
        if state.ema is not None:
            # Whole, so that sampling reads nothing else.
            items["ema"] = ocp.args.PyTreeSave(fill(state.ema, state.params))
        self._finish_sealing()  # it reads files of checkpoints that this save may remove
        self._manager.save(step, args=ocp.args.Composite(**items))
        self._seal_in_background(step)

    def restore(self, abstract: TrainState, step: int | None = None) -> tuple[TrainState, Json]:
        """(state, data iterator state) of the newest checkpoint, or of `step`, each array straight to its sharding.

        abstract: ShapeDtypeStructs with the shardings wanted, of any mesh. Where the newest cannot be read, the one
        before it is taken, with a warning. UserError where nothing fits or can be read.
        """
        if step is not None:
            return self._restore(step, abstract)
        while True:
            step = self.require(None)
            try:
                return self._restore(step, abstract)
            except Misfit:  # the files are sound; an older checkpoint would fit no better
                raise
            except (UserError, OSError, ValueError) as error:
                # A sealed checkpoint was verified when the folder was opened: then it is the config that does not fit.
                sealed = (self._seals / f"{step}.json").exists()
                if sealed or step == min(self._manager.all_steps()):
                    raise
                self._set_aside(step, str(error)[:200])

    def _restore(self, step: int, abstract: TrainState) -> tuple[TrainState, Json]:
        self._check_shapes(step, "params", abstract.params)
        self._check_shapes(step, "state", _without_weights(abstract))
        items = {
            "state": _some(_without_weights(abstract)),
            "params": _some(abstract.params),
            "data": ocp.args.JsonRestore(),
        }
        if abstract.ema is not None:
            # It was saved whole; of the parameters that are frozen, which have no average here, nothing is read.
            items["ema"] = _some(fill(abstract.ema, jax.tree.map(lambda _: ocp.PLACEHOLDER, abstract.params)))
        read = self._read(step, items)
        ema = None if abstract.ema is None else like(abstract.ema, read["ema"])
        return read["state"].replace(params=read["params"], ema=ema), read["data"]

    def return_to(self, before: int) -> int | None:
        """Make the newest checkpoint of step <= `before` the newest of all; later ones are set aside. None: no such."""
        steps = self._manager.all_steps()
        if not any(step <= before for step in steps):
            return None
        for step in sorted(steps, reverse=True):
            if step > before:
                self._set_aside(step, f"saved after the trouble that began at step {before}")
        return self.latest_step()

    def config(self, step: int | None = None) -> Json:
        """The config that was saved with the newest checkpoint, or with that of `step`."""
        return self._read(self.require(step), {"config": ocp.args.JsonRestore()})["config"]

    def versions(self, step: int | None = None) -> dict[str, str]:
        """The library versions that wrote the newest checkpoint, or that of `step`."""
        return self._read(self.require(step), {"versions": ocp.args.JsonRestore()})["versions"]

    def _check_shapes(self, step: int, item: str, abstract: Tree) -> None:
        """UserError that names the first array that differs; Orbax would say so less clearly, and only half-way."""
        folder = self.folder / str(step) / item
        if not folder.exists():
            raise UserError(f"checkpoint {folder.parent} has no {item}: was it saved by this version of osjax?")
        stored = _shapes(ocp.PyTreeCheckpointHandler().metadata(folder).tree)
        if problems := shapes.differences(stored, _shapes(abstract)):
            raise Misfit(
                f"checkpoint {folder.parent} does not fit this config ({problems[0]}): use the config it was made "
                "with, or another --config.workdir"
            )

    def _read(self, step: int, items: Json) -> Any:
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**items))
        except (ValueError, KeyError) as error:
            first = str(error).strip("'\"").splitlines()[0][:200]
            raise UserError(
                f"checkpoint {self.folder}/{step} does not fit this config ({first}): use the config it was made with, "
                "or another --config.workdir"
            ) from error

    def require(self, step: int | None = None) -> int:
        """The step, or the newest. UserError where there is none."""
        step = self.latest_step() if step is None else step
        if step is None:
            raise UserError(f"no complete checkpoint in {self.folder}: train first, or give another folder")
        return step

    def wait(self) -> None:
        """Return once the last save is complete and sealed."""
        self._manager.wait_until_finished()
        self._finish_sealing()

    def _finish_sealing(self) -> None:
        if self._sealing is not None:
            self._sealing.join()
            self._sealing = None

    def remove_half_made(self) -> None:
        """Remove what saves that failed, or were killed, have left of themselves, while none is under way."""
        if jax.process_index():
            return
        for _ in range(TRIES):  # other threads of the save may still write
            left = []
            with contextlib.suppress(OSError):  # of a disk that has gone
                left = [path for path in self.folder.iterdir() if HALF_MADE in path.name]
            for path in left:
                with contextlib.suppress(OSError):
                    path.rmtree()
            if not left:
                return
            time.sleep(0.2)

    def close(self) -> None:
        """Wait for the last save, then let go of the folder. Its error is raised where no other is on its way."""
        on_its_way = sys.exc_info()[1]
        try:
            self.wait()
            self._manager.close()
        except Exception as error:
            self.remove_half_made()
            if on_its_way is None:
                raise
            log.info("%s: %s", self.folder, error)


def _array_handler() -> ocp.PyTreeCheckpointHandler:
    """Orbax's, with two settings of its array handler.

    Replicas share the writing of an array, but not of small ones: Orbax would cut every bias by a program of its own on
    each device while training waits, three quarters of the time that a save blocked on eight devices. Nothing is
    compressed: weights and moments hardly shrink, and the processors that compress are those that feed the devices.
    """
    arrays = ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=SLICE)
    registry = ocp.type_handlers.create_type_handler_registry(
        (jax.Array, arrays), (np.ndarray, ocp.type_handlers.NumpyHandler())
    )
    return ocp.PyTreeCheckpointHandler(use_compression=False, type_handler_registry=registry)


def _versions() -> dict[str, str]:
    return {"osjax": osjax.__version__, **{name: version(name) for name in LIBRARIES}}


def _absolute(folder: epath.PathLike) -> epath.Path:
    path = epath.Path(folder)
    return path if "://" in str(folder) else path.resolve()


def _shapes(tree: Tree) -> dict[shapes.Path, shapes.Shape]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {tuple(jax.tree_util.keystr((k,), simple=True) for k in path): tuple(leaf.shape) for path, leaf in leaves}


def _without_weights(state: TrainState) -> TrainState:
    """Parameters and their average are items of their own, so that sampling and the next stage read only them."""
    return state.replace(params=None, ema=None, frozen=None)


def _some(abstract: Tree) -> ocp.args.PyTreeRestore:
    """Reads arrays to their shardings and leaves those unread in whose place there is a PLACEHOLDER."""

    def how(x):
        if x is ocp.PLACEHOLDER:
            return ocp.RestoreArgs()
        return ocp.ArrayRestoreArgs(sharding=x.sharding, global_shape=x.shape, dtype=x.dtype)

    return ocp.args.PyTreeRestore(abstract, restore_args=jax.tree.map(how, abstract))


def abstract_like(state: TrainState, shardings: TrainState) -> TrainState:
    """ShapeDtypeStructs of a `state`, arrays or shapes, with these `shardings`: what `restore` fills."""
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings)
