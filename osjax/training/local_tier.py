"""The fast tier of checkpoints: every host's own disk, between those of the store, and how all agree on one of them.

A step counts where every part of every array lies whole on some host. A host that lost its disk gets its parts from one
that holds the same: replicas of data parallelism do. Where sharding leaves no replica, the store's checkpoint is next.

Orbax has such managers (`orbax.checkpoint.experimental.emergency`); docs/survival.md says why they are not used.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from osjax.parallel import exchange
from osjax.training import host_disk
from osjax.training.host_disk import Damaged, HostDisk, piece_name
from osjax.training.state import TrainState
from osjax.types import Json

log = logging.getLogger(__name__)
Held = dict[str, tuple[Path, list]]  # of a step: where each part is, and what is said of it


class Restored(NamedTuple):
    """A state from the hosts' disks, with its step, and the data iterator's state and the config saved beside it."""

    step: int
    state: TrainState
    data: Json
    config: Json


class LocalTier:
    """The steps of one stage that hosts keep on their disks. disk: this host's."""

    def __init__(self, disk: HostDisk):
        self._disk = disk

    def save(self, step: int, state: TrainState, data: Json | None, config: Json) -> None:
        """Start writing a step; returns once the arrays are copied off the devices. Failing costs a warning.

        state: on the devices. data: the data iterator's state, and config: the stage's, both as JSON values.
        """
        pieces = host_disk.pieces_of(state.replace(frozen=None))  # the model beneath adapters never changes
        self._disk.save(step, pieces, {"data": data or {}, "config": config})

    def restore(self, abstract: TrainState, after: int, until: int | None = None) -> Restored | None:
        """The newest state that all hosts together hold; None where there is none. All processes call it together.

        abstract: ShapeDtypeStructs with the shardings wanted. after: the step that the store has, -1 for none: only
        later ones count. until: the last step that counts. What turns out to be damaged is removed, and the next is
        taken.
        """
        self._disk.wait()
        wanted = _Wanted(abstract)
        while True:
            here, abouts = self._here(after, until)
            told = exchange.of_all({str(step): [_short(name) for name in held] for step, held in here.items()})
            step = wanted.newest(told)
            if step is None:
                if any(told) and jax.process_index() == 0:
                    there = ", ".join(sorted({step for one in told for step in one}, key=int))
                    log.warning("on hosts' disks, not whole or of another model, so not used: steps %s", there)
                return None
            plan = wanted.plan([one.get(str(step), ()) for one in told])
            pieces = self._read(here.get(step, {}), plan)
            if not all(exchange.of_all(pieces is not None)):
                continue
            assert pieces is not None
            wanted.exchange(plan, pieces)
            said = next(one for one in exchange.of_all(abouts.get(step)) if one)
            return Restored(step, wanted.assemble(pieces), said["data"], said["config"])

    def _here(self, after: int, until: int | None) -> tuple[dict[int, Held], dict[int, Json]]:
        """Of each step that this host has: where its parts are; what else is said of it."""
        here: dict[int, Held] = {}
        abouts: dict[int, Json] = {}
        for step, folders in self._disk.steps().items():
            if step <= after or (until is not None and step > until):
                continue
            for folder in folders:
                try:
                    said = host_disk.about(folder)
                except Damaged as error:
                    self._disk.drop(folder, error)
                    continue
                arrays = said.pop("arrays")
                here.setdefault(step, {}).update({name: (folder, one) for name, one in arrays.items()})
                abouts[step] = said
        return here, abouts

    def _read(self, held: Held, plan: "_Plan") -> dict[str, np.ndarray] | None:
        """The parts that this process needs and has, and those that it sends. None where one is damaged."""
        pieces: dict[str, np.ndarray] = {}
        names = plan.read[jax.process_index()]
        for folder in sorted({held[name][0] for name in names}):
            try:
                mine = {name: held[name][1] for name in names if held[name][0] == folder}
                pieces |= host_disk.read(folder, mine)
            except Damaged as error:
                self._disk.drop(folder, error)
                return None
        return pieces

    def forget_after(self, step: int) -> None:
        """Remove what is newer than a step, as the run goes on from there."""
        self._disk.forget_after(step)

    def clear(self) -> None:
        """Remove all of the stage: it is finished, and the store has its last state."""
        self._disk.clear()

    def wait(self) -> None:
        """Return once the last save is written, or given up."""
        self._disk.wait()


class _Plan(NamedTuple):
    """Who does what. read: of each process, the parts that it reads. sent: parts by (source, target)."""

    read: Sequence[Sequence[str]]
    sent: Mapping[tuple[int, int], Sequence[str]]


class _Wanted:
    """The parts that every process needs of a state. abstract: ShapeDtypeStructs with their shardings."""

    def __init__(self, abstract: TrainState):
        self._abstract = abstract.replace(frozen=None)
        self._kinds: dict[str, tuple[tuple[int, ...], np.dtype]] = {}
        self._needs: list[dict[str, None]] = [{} for _ in range(jax.process_count())]
        for path, leaf in jax.tree_util.tree_leaves_with_path(self._abstract):
            for device, index in leaf.sharding.devices_indices_map(leaf.shape).items():
                name = piece_name(path, index, leaf.shape, leaf.dtype)
                self._needs[device.process_index][name] = None
                sizes = tuple(len(range(*at.indices(size))) for at, size in zip(index, leaf.shape, strict=True))
                self._kinds[name] = sizes, leaf.dtype

    def newest(self, told: Sequence[Mapping[str, Sequence[str]]]) -> int | None:
        """The newest step of which all parts are somewhere. told: what each process has, by its steps."""
        needed = {_short(name) for name in self._kinds}
        for step in sorted({int(step) for one in told for step in one}, reverse=True):
            if needed <= {short for one in told for short in one.get(str(step), ())}:
                return step
        return None

    def plan(self, held: Sequence[Sequence[str]]) -> _Plan:
        """Who reads and sends what. held: the parts that each process has."""
        has = [set(one) for one in held]
        read: list[dict[str, None]] = [{} for _ in held]
        sent: dict[tuple[int, int], list[str]] = {}
        for target, needs in enumerate(self._needs):
            for name in needs:
                short = _short(name)
                holders = [index for index, one in enumerate(has) if short in one]
                # Its own where it can; of several others, not the same one for all.
                source = target if target in holders else holders[target % len(holders)]
                read[source][name] = None
                if source != target:
                    sent.setdefault((source, target), []).append(name)
        return _Plan([list(one) for one in read], dict(sorted(sent.items())))

    def exchange(self, plan: _Plan, pieces: dict[str, np.ndarray]) -> None:
        """Send and get what is planned; `pieces` takes in what comes."""
        for (source, target), names in plan.sent.items():
            if target == jax.process_index():
                pieces |= {name: np.empty(*self._kinds[name]) for name in names}
                size = sum(pieces[name].nbytes for name in names)
                log.warning("process %d gets %.1f MB from the disk of process %d", target, size / 1e6, source)
            if jax.process_index() in (source, target):
                exchange.send([pieces[name] for name in names], source, target)

    def assemble(self, pieces: Mapping[str, np.ndarray]) -> TrainState:
        """The state on the devices. pieces: all that this process needs."""

        def one(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
            sharding, shape = leaf.sharding, leaf.shape
            assert sharding is not None
            names = {
                device: piece_name(path, index, shape, leaf.dtype)
                for device, index in sharding.addressable_devices_indices_map(shape).items()
            }
            parts = [jax.device_put(pieces[name], device) for device, name in names.items()]
            return jax.make_array_from_single_device_arrays(shape, sharding, parts)

        return jax.tree_util.tree_map_with_path(one, self._abstract)


def _short(name: str) -> str:
    """What stands for the name of a part where all tell all of theirs."""
    return hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
