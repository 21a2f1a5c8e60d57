"""The process that runs the models: it is told what to make, and tells how far it is.

It knows neither clients nor the store. What it makes lies whole on the disk before it says so; whoever kills it loses
the videos that it was making, and no other.
"""

import contextlib
import logging
import os
import signal
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import jax
import numpy as np

from osjax import atomic
from osjax.errors import UserError
from osjax.flow.sampler import State
from osjax.parallel import compiled, host
from osjax.parts import pipeline
from osjax.parts.sampling import SamplingKeys
from osjax.sampling import longer, t2i2v
from osjax.sampling.job import Job
from osjax.sampling.pipeline import Pipeline
from osjax.sampling.settings import T2I2V, SampleSettings
from osjax.serve import live, media
from osjax.serve.preview import Preview
from osjax.types import Json

log = logging.getLogger(__name__)
PREVIEW_S = 0.25  # between two previews, which cost a copy from the device


@dataclass(frozen=True)
class Order:
    """A video to make. references: files of arrays. folder: for its files. says: what they tell of how it was made.

    takes: seconds that a video like it took, None where nobody knows. longer: frames of the whole video, where it goes
    on from the frames of its reference.
    """

    id: str
    model: str
    prompt: str
    settings: Json
    references: tuple[str, ...]
    folder: str
    says: Json
    takes: float | None = None
    longer: int | None = None


class Stopped(Exception):
    """All videos of a group are cancelled."""


def main(pipe: Connection, models: Mapping[str, SamplingKeys], loaded: int, environment: Mapping[str, str]) -> None:
    """The life of the process.

    pipe: to the process that it works for. models: what is served, by name. loaded: how many are held at once.
    environment: variables that count for its devices.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-c is for the process that this one works for
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.update(environment)
    os.nice(5)  # answers come first
    host.keep_freed_memory()
    worker = Worker(pipe, models, loaded)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            worker.serve(pipe.recv())


def _end_with_parent() -> None:
    parent_process().join()
    os._exit(1)


class Worker:
    """The models, at most `loaded` of `models` at once, and the end of the pipe that asks for videos."""

    def __init__(self, pipe: Connection, models: Mapping[str, SamplingKeys], loaded: int):
        self._pipe, self._models, self._most = pipe, models, loaded
        self._loaded: OrderedDict[str, Pipeline] = OrderedDict()
        self._previews: dict[str, Preview] = {}
        self._cancelled: set[str] = set()

    def serve(self, message: tuple[str, Any]) -> None:
        """Do what a message asks for. message: ("make", orders), ("warm", (model, settings)) or ("cancel", id)."""
        kind, value = message
        if kind == "cancel":
            self._cancelled.add(value)
        elif kind == "warm":
            self._guarded([], lambda: self._warm(*value))
            self._pipe.send(("warmed", value))
        elif kind == "make":
            orders = [order for order in value if order.id not in self._cancelled]
            self._guarded(orders, lambda: self._make(orders))
            for order in value:
                if order.id in self._cancelled:
                    self._cancelled.discard(order.id)
                    self._pipe.send(("failed", (order.id, "cancelled", "cancelled")))
            self._pipe.send(("idle", None))

    def _guarded(self, orders: Sequence[Order], work) -> None:
        """Do some work; whatever it raises is told of all orders that are not finished yet."""
        try:
            work()
            return
        except Stopped:
            return
        except UserError as error:
            code, message = "invalid_request", str(error)
        except Exception as error:
            if atomic.is_full_disk(error):
                code, message = "disk_full", "no space is left on the disk of the server"
            else:
                # Compilers' messages run to pages, and say more of the server than clients need to know.
                log.exception("a video failed")
                code, message = "server_error", f"the server failed ({type(error).__name__}): its log says why"
        for order in orders:
            if order.id not in self._cancelled:
                self._pipe.send(("failed", (order.id, code, message)))
        if not orders:
            log.warning("compiling ahead failed: %s", message)

    def _pipeline(self, name: str) -> Pipeline:
        """The model of a name; those that were used longest ago make room for it."""
        if name not in self._loaded:
            while len(self._loaded) >= self._most:
                _, oldest = self._loaded.popitem(last=False)
                oldest.free()
            keys = self._models[name]
            compiled.keep(keys.compilation_cache)
            self._loaded[name] = pipeline.of_keys(keys)
            self._pipe.send(("loaded", (name, self._loaded[name].rows)))
        self._loaded.move_to_end(name)
        return self._loaded[name]

    def _preview(self, name: str, channels: int) -> Preview:
        return self._previews.setdefault(name, Preview(channels))

    def _warm(self, name: str, settings: Json) -> None:
        """Compile all programs of some settings by making a video of one step, and the first step of a whole one."""
        pipe, asked = self._pipeline(name), SampleSettings(**settings)
        size = pipe.size(asked)
        given = [np.zeros((r.pixel_frames(pipe.causal), *size, 3), np.uint8) for r in asked.condition.references]
        job = Job("a", 0, reference=tuple(given) or None)

        def stop(_: State) -> None:
            raise Stopped

        with contextlib.suppress(Stopped):
            next(pipe.stream([job], asked, stop))
        video, latents = next(pipe.stream([job], replace(asked, steps=1), lambda state: None))
        self._preview(name, latents.shape[-1]).learn(latents, video)

    def _make(self, orders: Sequence[Order]) -> None:
        if not orders:
            return
        name, settings = orders[0].model, SampleSettings(**orders[0].settings)
        pipe, began = self._pipeline(name), time.monotonic()
        preview = self._preview(name, pipe.latent_shape(settings)[-1])
        if orders[0].longer is not None:  # never together with others
            made = self._longer(pipe, orders[0], settings, preview)
        else:
            jobs, progress = [_job(order) for order in orders], _Progress(self, orders, settings.steps, preview)
            if settings.mode == T2I2V:
                jobs = t2i2v.with_first_frames(pipe.image, jobs, settings, pipe.size(settings))
            made = pipe.stream(jobs, settings, progress.step)
        for order, (video, latents) in zip(orders, made, strict=True):
            if order.id in self._cancelled:
                continue
            size = media.save(Path(order.folder), video, order.says, settings.fps, self._models[name].output.crf)
            self._pipe.send(("done", (order.id, size, time.monotonic() - began)))
            if order.longer is None:  # the latents are of the whole video
                preview.learn(latents, video)

    def _longer(
        self, pipe: Pipeline, order: Order, settings: SampleSettings, preview: Preview
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The video of an order that goes on from another, and the latents of its last window."""
        source = np.load(order.references[0], allow_pickle=False)
        wanted = longer.plan(pipe, settings, len(source), (order.longer or 0) - len(source))
        progress = _Progress(self, [order], settings.steps * len(wanted.seams), preview)
        yield longer.extend(pipe, _job(order), wanted, source, progress.step)

    def heard(self, orders: Sequence[Order]) -> None:
        """Read what came meanwhile; `Stopped` where all orders are cancelled."""
        while self._pipe.poll():
            kind, value = self._pipe.recv()
            if kind == "cancel":
                self._cancelled.add(value)
        if all(order.id in self._cancelled for order in orders):
            raise Stopped

    def tell(self, kind: str, value: object) -> None:
        """Send a message."""
        self._pipe.send((kind, value))


class _Progress:
    """What a step of a group of orders does: hear of cancellations, tell of progress."""

    def __init__(self, worker: Worker, orders: Sequence[Order], steps: int, preview: Preview):
        self._worker, self._orders, self._steps, self._preview = worker, orders, steps, preview
        self._first, self._done, self._shown = 0.0, 0, 0.0

    def step(self, state: State) -> None:
        self._done += 1
        if self._done == 1:
            self._first = time.monotonic()
        self._worker.heard(self._orders)
        pictures: list[bytes | None] = [None] * len(self._orders)
        if time.monotonic() - self._shown > PREVIEW_S or self._done == self._steps:
            clips = np.asarray(jax.device_get(state.clip))
            pictures = [self._preview.png(clip) for clip in clips[: len(self._orders)]]
            self._shown = time.monotonic()
        for order, picture in zip(self._orders, pictures, strict=False):
            left = live.left(self._first, self._done, self._steps, order.takes)
            self._worker.tell("step", (order.id, self._done, self._steps, left, picture))


def _job(order: Order) -> Job:
    settings = order.settings
    paths = order.references if order.longer is None else ()
    given = tuple(np.load(path, allow_pickle=False) for path in paths)
    return Job(order.prompt, settings["seed"], settings["negative"], given or None)
