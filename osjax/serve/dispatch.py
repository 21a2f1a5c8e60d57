"""From the queue to the process that runs the models, and back: one thread, which also brings that process back."""

import contextlib
import logging
import multiprocessing
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

from osjax.parts.sampling import SamplingKeys
from osjax.serve import answers, worker
from osjax.serve.files import Files
from osjax.serve.live import Board
from osjax.serve.metrics import Metrics
from osjax.serve.store import Store, Video
from osjax.serve.worker import Order
from osjax.types import Json

log = logging.getLogger(__name__)
ATTEMPTS = 3  # of a video that takes the process down
PAUSE_S = 0.5  # before a process that died is started again, and while the disk is full


class Dispatcher(threading.Thread):
    """The thread that works off the queue.

    store, files, board, metrics: of this server. models, loaded, environment: of the process, see `worker.main`.
    describe: what the files of a video say of it. warm: (model, settings) of what is compiled ahead.
    """

    def __init__(
        self,
        store: Store,
        files: Files,
        board: Board,
        metrics: Metrics,
        process: tuple[Mapping[str, SamplingKeys], int, Mapping[str, str]],
        describe: Callable[[Video], Json],
        warm: list[tuple[str, Json]],
    ):
        super().__init__(name="dispatcher", daemon=True)
        self._store, self._files, self._board, self._metrics = store, files, board, metrics
        self._process, self._describe, self._warm = process, describe, deque(warm)
        self._wake, self._end, self._lock = threading.Event(), threading.Event(), threading.Lock()
        self._pipe: Connection | None = None
        self._rows: dict[str, int] = {}
        self._running: dict[str, Video] = {}
        self._warming = False
        self.alive = False

    @property
    def ready(self) -> bool:
        """Whether the process runs and has compiled what it was to compile ahead."""
        return self.alive and not self._warm and not self._warming

    def nudge(self) -> None:
        """There is something new in the queue."""
        self._wake.set()

    def cancel(self, id: str) -> None:
        """Stop a video at its next step, if it runs."""
        with self._lock:
            if self._pipe is not None and id in self._running:
                with contextlib.suppress(OSError):  # the process has died, and the store knows what is cancelled
                    self._pipe.send(("cancel", id))

    def stop(self) -> None:
        """End the thread and the process; what runs will wait again."""
        self._end.set()
        self._wake.set()
        self.join(30)

    def run(self) -> None:
        """Work until `stop`; a process that dies is started again."""
        context = multiprocessing.get_context("forkserver")
        while not self._end.is_set():
            ours, theirs = context.Pipe()
            process = context.Process(target=worker.main, args=(theirs, *self._process), name="models", daemon=False)
            process.start()
            theirs.close()
            log.info("models", extra={"told": {"process": process.pid}})
            with self._lock:
                self._pipe = ours
            self.alive = True
            try:
                self._feed(ours)
            except (EOFError, ConnectionError, BrokenPipeError):
                self._metrics.restarts.inc()
                log.error("the process of the models ended: started again")
            except Exception:
                log.exception("the queue stopped for a moment")
            finally:
                self.alive = False
                with self._lock:
                    self._pipe = None
                process.kill()
                process.join()
                ours.close()
            self._put_back(died=not self._end.is_set())
            self._end.wait(PAUSE_S)

    def _feed(self, pipe: Connection) -> None:
        while not self._end.is_set():
            self._wake.clear()
            orders = self._next()
            if orders:
                self._send(("make", orders))
                self._hear(pipe)
            elif self._warm:
                self._warming, what = True, self._warm.popleft()
                self._send(("warm", what))
                self._hear(pipe)
                self._warming = False
            elif pipe.poll():
                self._message(*pipe.recv())
            else:
                self._wake.wait(0.2)

    def _send(self, message: tuple[str, Any]) -> None:
        with self._lock:
            if self._pipe is None:
                raise EOFError
            self._pipe.send(message)

    def _hear(self, pipe: Connection) -> None:
        """Take messages until the process is idle again."""
        while not self._end.is_set():
            if not pipe.poll(0.2):
                continue
            kind, value = pipe.recv()
            if kind in ("idle", "warmed"):
                return
            self._message(kind, value)

    def _next(self) -> list[Order]:
        waiting = self._store.waiting()[:1]
        if not waiting:
            return []
        with self._lock:  # so that nobody cancels one in between
            videos = self._store.start(self._rows.get(waiting[0].variant, 1))
            self._running = {video.id: video for video in videos}
        for video in videos:
            takes = self._board.takes(video.together)
            self._board.put(video.id, step=0, steps=answers.steps(video), seconds_left=takes, preview=None)
        return [self._order(video) for video in videos]

    def _order(self, video: Video) -> Order:
        longer = video.shown.get("longer", {}).get("frames")
        files = self._files.references(video.id, video.references_count)
        paths = tuple(str(path) for path in ([self._files.source(video.id)] if longer else files))
        folder, takes = str(self._files.folder(video.id)), self._board.takes(video.together)
        says = self._describe(video)
        return Order(video.id, video.variant, video.prompt, video.settings, paths, folder, says, takes, longer)

    def _message(self, kind: str, value: Any) -> None:
        if kind == "loaded":
            self._rows[value[0]] = value[1]
        elif kind == "step":
            id, step, steps, left, preview = value
            shown = {} if preview is None else {"preview": preview}
            self._board.put(id, step=step, steps=steps, seconds_left=left, **shown)
        elif kind == "done":
            id, size, seconds = value
            self._kept(lambda: self._store.complete(id, size))
            if self._store.get(id) is None:  # deleted while it was written
                self._files.remove(id)
            self._files.remove_source(id)
            video = self._over(id, "completed")
            if video is not None:
                self._metrics.seconds.labels(video.model).observe(seconds)
                self._board.took(video.together, seconds)
        elif kind == "failed":
            id, code, message = value
            self._kept(lambda: self._store.fail(id, code, message))
            self._over(id, code)

    def _over(self, id: str, outcome: str) -> Video | None:
        with self._lock:
            video = self._running.pop(id, None)
        self._board.drop(id)
        if video is not None:
            self._metrics.videos.labels(outcome).inc()
            log.info("video", extra={"told": {"video": id, "outcome": outcome}})
        return video

    def _kept(self, write: Callable[[], None]) -> None:
        """Write to the store, however long its disk is full: what is finished must be said to be."""
        while not self._end.is_set():
            try:
                write()
                return
            except (sqlite3.OperationalError, OSError) as error:
                log.error("the store cannot be written (%s): tried again", error)
                self._end.wait(PAUSE_S)

    def _put_back(self, died: bool) -> None:
        """What ran waits again. died: the process took it down, which a video may do some times alone."""
        with self._lock:
            videos, self._running = list(self._running.values()), {}
        self._warming = False
        for video in videos:
            row = self._store.get(video.id)
            if row is not None and row.cancelled:
                self._kept(lambda id=video.id: self._store.fail(id, "cancelled", "cancelled"))
            elif died and video.attempts >= ATTEMPTS:
                why = f"the process of the models ended {video.attempts} times while it made this video"
                self._kept(lambda id=video.id, why=why: self._store.fail(id, "server_error", why))
            elif not self._end.is_set():
                self._kept(lambda id=video.id: self._store.again(id))
            self._board.drop(video.id)
