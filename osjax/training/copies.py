"""Copies of a stage's checkpoints in an object store that Orbax cannot write: S3.

Orbax writes to a folder on this machine, and a thread copies what is sealed there. In the store a checkpoint is what
has a seal, which comes last and goes first; the files without one are of a copy that broke off. A new machine brings
the newest one back before training begins.
"""

import contextlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from tqdm import tqdm

from osjax import integrity, object_store
from osjax.errors import UserError

POLL_S = 0.5  # between two looks for a checkpoint that was sealed
LONGEST_WAIT_S = 30.0  # between two tries in an outage
PATIENCE_S = 120.0  # of an outage at the end of a run, when nothing else is left to do
AT_ONCE = 8  # files


def steps(url: str) -> list[int]:
    """Steps of the whole checkpoints in the store at `url`, ascending. UserError where it cannot be asked."""
    stems = [name.removesuffix(".json") for name in object_store.sizes(f"{url}.seals") if name.endswith(".json")]
    return sorted(int(stem) for stem in stems if stem.isdigit())


def kept(there: Iterable[int], keep: int, keep_every: int) -> set[int]:
    """The steps that stay, of those `there`: the `keep` newest, and multiples of `keep_every` (0: none)."""
    ordered = sorted(there)
    return {*ordered[-keep:], *(step for step in ordered if keep_every and step % keep_every == 0)}


def bring(url: str, folder: Path) -> int | None:
    """Copy the newest checkpoint of a store to a folder that has none as new; its step, None where nothing was newer.

    url: of the copies. folder: of a stage's checkpoints on this machine. UserError where the store cannot be read, or
    what came is not as its seal has it.
    """
    there = steps(url)
    if not there or there[-1] <= max(_steps_in(folder), default=-1):
        return None
    step = there[-1]
    print(f"osjax: checkpoint {step} is brought from {url}", file=sys.stderr, flush=True)
    seal, partial = _seal(folder, step), folder / f".{step}.{os.getpid()}.part"
    for made in (folder, seal.parent):
        made.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        fresh = partial.with_suffix(".seal")
        object_store.get(f"{url}.seals/{step}.json", fresh)
        names = integrity.read_seal(epath.Path(fresh))
        for name in names:
            if not (partial / name).resolve().is_relative_to(partial.resolve()):
                raise UserError(f"{url}.seals/{step}.json names the file {name} outside the checkpoint: delete it")
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
        _all_of(names, lambda name: object_store.get(f"{url}/{step}/{name}", partial / name))
        if wrong := integrity.damage(epath.Path(partial), epath.Path(fresh)):
            raise UserError(f"{url}/{step} is damaged ({wrong}): delete {url}.seals/{step}.json to take an older one")
        seal.unlink(missing_ok=True)
        os.replace(partial, folder / str(step))
        os.replace(fresh, seal)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        partial.with_suffix(".seal").unlink(missing_ok=True)
    return step


@contextlib.contextmanager
def copied(url: str | None, folder: os.PathLike, keep: int, keep_every: int, stage: str) -> Iterator[None]:
    """A block in which a stage's checkpoints are copied to a store; before it, a newer one is brought from there.

    url: of the copies; None: there are none, and nothing is done. folder: of the checkpoints that Orbax writes, seen by
    all processes. keep, keep_every: as `training.checkpoint.Checkpoints` has them. stage: its name, for messages.
    All processes enter it together; the first one copies. While the store is out of reach training goes on, and what is
    newest is copied later. UserError where the store cannot be asked at the start, and where the last checkpoint could
    not be copied within PATIENCE_S at the end.
    """
    if url is None:
        yield
        return
    place = Path(folder)
    _together(url, place)
    if jax.process_index():
        yield
        return
    copier = _Copier(url, place, keep, keep_every, stage)
    copier.start()
    try:
        yield
    except BaseException:
        if error := copier.finish():
            tqdm.write(f"osjax: {error}", file=sys.stderr)  # what ended the run is raised
        raise
    if error := copier.finish():
        raise UserError(error)


def _together(url: str, folder: Path) -> None:
    """Bring what is newer, on the first process; the others wait, and are told where it failed."""
    failed = None
    if jax.process_index() == 0:
        try:
            bring(url, folder)
            folder.mkdir(parents=True, exist_ok=True)
        except UserError as error:
            failed = error
    if jax.process_count() > 1:
        mine = os.getpid() if failed is None else -1
        mark = folder / f".shared.{mine}.part"
        if jax.process_index() == 0 and failed is None:
            mark.touch()
        told = int(multihost_utils.broadcast_one_to_all(np.int32(mine)))
        sees = told < 0 or (folder / f".shared.{told}.part").exists()
        all_see = bool(np.all(multihost_utils.process_allgather(np.bool_(sees))))
        mark.unlink(missing_ok=True)
        if told < 0 and failed is None:
            failed = UserError(f"checkpoints of {url} could not be brought here: see process 0")
        if not all_see:
            failed = UserError(
                f"{folder} is not seen by all processes, as checkpoints on {url} need it: share the workdir, use gs:// "
                "or mount the bucket"
            )
    if failed:
        raise failed


class _Copier:
    """The thread that copies. url, folder, keep, keep_every, stage: as `copied` takes them."""

    def __init__(self, url: str, folder: Path, keep: int, keep_every: int, stage: str):
        self.url, self.folder, self.keep, self.keep_every, self.stage = url, folder, keep, keep_every, stage
        self._ending, self._failed = threading.Event(), ""
        self._copied: dict[int, bytes] = {}  # seals of what is in the store
        self._thread = threading.Thread(target=self._run, name="copies", daemon=True)

    def start(self) -> None:
        for step in steps(self.url):
            self._copied[step] = object_store.read(f"{self.url}.seals/{step}.json")
        self._thread.start()

    def finish(self) -> str:
        """Wait until all that is sealed is copied; what is wrong where that fails, else empty."""
        self._ending.set()
        self._thread.join()
        return self._failed

    def _run(self) -> None:
        since: float | None = None  # the last try went well
        tries = 0
        while True:
            last = self._ending.is_set()
            step, aside = self._due(), self._set_aside()
            if step is None and not aside:
                if last:
                    return
                self._ending.wait(POLL_S)
                continue
            try:
                for invalid in aside:
                    self._unseal(invalid)
                if step is not None:
                    self._copy(step)
                if since is not None:
                    self._tell(f"{self.url} answers again, checkpoint {step} is there")
                since, tries = None, 0
            except _Gone:
                continue
            except Exception as error:
                line = str(error) if isinstance(error, UserError) else f"{self.url} ({object_store.reason(error)})"
                if since is None:
                    self._tell(f"checkpoint {step} is not copied yet: {line}; it is tried again")
                    since = time.monotonic()
                if last and time.monotonic() - since > PATIENCE_S:
                    where = f"checkpoint {step} is in {self.folder} and not in the store"
                    self._failed = f"{self.stage}: {where}: {line}; the same command copies it"
                    return
                tries += 1
                pause = min(2.0**tries, LONGEST_WAIT_S)
                time.sleep(min(pause, 2.0)) if last else self._ending.wait(pause)

    def _tell(self, line: str) -> None:
        tqdm.write(f"{self.stage}: {line}", file=sys.stderr)

    def _due(self) -> int | None:
        """The step to copy next: the newest that is sealed here, then those that stay for good."""
        sealed = [step for step in _steps_in(self.folder) if _seal(self.folder, step).exists()]
        lasting = [step for step in sealed if self.keep_every and step % self.keep_every == 0]
        for step in [*sealed[-1:], *lasting[::-1]]:
            with contextlib.suppress(FileNotFoundError):
                if self._copied.get(step) != _seal(self.folder, step).read_bytes():
                    return step
        return None

    def _set_aside(self) -> list[int]:
        """Steps in the store that are not newest any more: the run went back to an older checkpoint."""
        newest = max(_steps_in(self.folder), default=None)
        return [] if newest is None else [step for step in self._copied if step > newest]

    def _copy(self, step: int) -> None:
        """One checkpoint to the store, its seal last; then what is not kept goes. `_Gone` where it was removed here."""
        try:
            sealed = _seal(self.folder, step).read_bytes()
            names = [str(p.relative_to(self.folder / str(step))) for p in _files(self.folder / str(step))]
        except FileNotFoundError as error:
            raise _Gone from error
        with _held_back(self.folder, step) as source:
            self._unseal(step)  # this one may replace another, of before the run went back
            _all_of(names, lambda name: object_store.put(source / name, f"{self.url}/{step}/{name}"))
            there = object_store.sizes(f"{self.url}/{step}")
            for name in names:
                if there.pop(name, None) != (source / name).stat().st_size:
                    raise UserError(f"{self.url}/{step}/{name} is not as it was sent")
            for name in there:  # of a copy that broke off
                object_store.remove(f"{self.url}/{step}/{name}")
            object_store.write(f"{self.url}.seals/{step}.json", sealed)
        self._copied[step] = sealed
        self._retain()

    def _unseal(self, step: int) -> None:
        object_store.remove(f"{self.url}.seals/{step}.json")
        self._copied.pop(step, None)

    def _retain(self) -> None:
        stay = kept(steps(self.url), self.keep, self.keep_every)
        names = object_store.sizes(self.url)
        lost = {int(name.split("/")[0]) for name in names if name.split("/")[0].isdigit()} - stay
        for step in lost:
            self._unseal(step)
            for name in names:
                if name.startswith(f"{step}/"):
                    object_store.remove(f"{self.url}/{name}")


class _Gone(Exception):
    """A checkpoint that was removed on this machine while it was to be copied."""


@contextlib.contextmanager
def _held_back(folder: Path, step: int) -> Iterator[Path]:
    """The files of a checkpoint under other names, so that Orbax may remove it meanwhile; itself without hard links."""
    linked = folder.parent / f"{folder.name}.copying"
    shutil.rmtree(linked, ignore_errors=True)
    source = linked
    try:
        try:
            shutil.copytree(folder / str(step), linked, copy_function=os.link)
        except OSError:
            source = folder / str(step)
        if not source.exists():
            raise _Gone
        yield source
    except FileNotFoundError as error:
        if not (folder / str(step)).exists() and source != linked:
            raise _Gone from error
        raise
    finally:
        shutil.rmtree(linked, ignore_errors=True)


def _steps_in(folder: Path) -> list[int]:
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.exists() else []


def _seal(folder: Path, step: int) -> Path:
    return folder.parent / f"{folder.name}.seals" / f"{step}.json"


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def _all_of(names: Iterable[str], work) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(work, names):
            pass
