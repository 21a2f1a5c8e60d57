"""Checkpoints: one asynchronous Orbax composite of state, moving average, data iterator and config.

The only module that knows Orbax. A checkpoint counts when Orbax has committed it; half-written ones are not seen.
"""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from osjax.errors import UserError
from osjax.training.state import TrainState


class Checkpoints:
    """Checkpoints of one stage in one folder. Close it: closing waits for writes under way."""

    def __init__(self, folder: Path, keep: int = 2):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        self.folder = Path(folder).absolute()
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, data: dict[str, Any] | None, config: dict[str, Any]) -> None:
        """Start writing; returns once the arrays are copied off the devices. A step that is there already is kept."""
        if step == self.latest_step():
            return
        items = {
            "state": ocp.args.StandardSave(_without_weights(state)),
            "params": ocp.args.StandardSave(state.params),
            "data": ocp.args.JsonSave(data or {}),
            "config": ocp.args.JsonSave(config),
        }
        if state.ema is not None:
            items["ema"] = ocp.args.StandardSave(state.ema)
        self._manager.save(step, args=ocp.args.Composite(**items))

    def restore(self, abstract: TrainState, step: int | None = None) -> tuple[TrainState, dict[str, Any]]:
        """The newest (or given) checkpoint as (state, data iterator state), each array straight to its sharding.

        abstract: ShapeDtypeStructs with the shardings wanted, of any mesh. UserError where nothing fits.
        """
        step = self._require(step)
        self._check_shapes(step, "params", abstract.params)
        items = {
            "state": ocp.args.StandardRestore(_without_weights(abstract)),
            "params": ocp.args.StandardRestore(abstract.params),
            "data": ocp.args.JsonRestore(),
        }
        if abstract.ema is not None:
            items["ema"] = ocp.args.StandardRestore(abstract.ema)
        found = self._read(step, items)
        return found["state"].replace(params=found["params"], ema=found.get("ema")), found["data"]

    def restore_weights(self, abstract: Any, ema: bool, step: int | None = None) -> Any:
        """Only the averaged (`ema`) or raw parameters, for sampling or for the start of the next stage."""
        step = self._require(step)
        item = "ema" if ema else "params"
        self._check_shapes(step, item, abstract)
        return self._read(step, {item: ocp.args.StandardRestore(abstract)})[item]

    def config(self, step: int | None = None) -> dict[str, Any]:
        return self._read(self._require(step), {"config": ocp.args.JsonRestore()})["config"]

    def _check_shapes(self, step: int, item: str, abstract: Any) -> None:
        """UserError that names the first array that differs; Orbax would say so less clearly, and only half-way."""
        folder = self.folder / str(step) / item
        if not folder.exists():
            raise UserError(f"checkpoint {folder.parent} has no {item}: was it saved by this version of osjax?")
        stored = _shapes(ocp.PyTreeCheckpointHandler().metadata(folder).tree)
        wanted = _shapes(abstract)
        for name in sorted(stored.keys() | wanted.keys()):
            here, there = wanted.get(name, "nothing"), stored.get(name, "nothing")
            if here != there:
                raise UserError(
                    f"checkpoint {folder.parent} does not fit this config ({name} is {there} there and {here} in the "
                    "model): use the config it was made with, or another --config.workdir"
                )

    def _read(self, step: int, items: dict[str, Any]) -> Any:
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**items))
        except (ValueError, KeyError) as error:
            first = str(error).strip("'\"").splitlines()[0][:200]
            raise UserError(
                f"checkpoint {self.folder}/{step} does not fit this config ({first}): use the config it was made with, "
                "or another --config.workdir"
            ) from error

    def _require(self, step: int | None) -> int:
        step = self.latest_step() if step is None else step
        if step is None:
            raise UserError(f"no complete checkpoint in {self.folder}: train first, or give another folder")
        return step

    def wait(self) -> None:
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.wait_until_finished()
        self._manager.close()


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves}


def _without_weights(state: TrainState) -> TrainState:
    """Parameters and their average are items of their own, so that sampling and the next stage read only them."""
    return state.replace(params=None, ema=None)


def abstract_like(state: Any, shardings: Any) -> Any:
    """ShapeDtypeStructs of `state` with these shardings: what `restore` fills."""
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings)
