"""Which finished videos go: those that are too old, then the oldest until the rest is small enough."""

import logging
import threading
import time
from collections.abc import Sequence

from osjax.serve.files import Files
from osjax.serve.options import Keep
from osjax.serve.store import Store, Video

log = logging.getLogger(__name__)
EVERY_S = 30.0


def due(videos: Sequence[Video], keep: Keep, now: float) -> list[Video]:
    """The videos that go.

    videos: all that are over, those that ended first ahead. keep: how long they stay. now: seconds since 1970.
    """
    old = [video for video in videos if (video.ended or 0) < now - 86400 * keep.days]
    rest = videos[len(old) :]
    too_many = sum(video.bytes for video in rest) - keep.gb * 1e9
    for video in rest:
        if too_many <= 0:
            break
        old.append(video)
        too_many -= video.bytes
    return old


class Retention(threading.Thread):
    """The thread that removes what is due. store, files: of this server. keep: how long videos stay."""

    def __init__(self, store: Store, files: Files, keep: Keep):
        super().__init__(name="retention", daemon=True)
        self._store, self._files, self._keep, self._end = store, files, keep, threading.Event()

    def run(self) -> None:
        """Remove what is due, again and again."""
        while not self._end.is_set():
            try:
                self.once()
            except Exception:
                log.exception("retention failed")
            self._end.wait(EVERY_S)

    def once(self) -> int:
        """Remove what is due by now; how many videos."""
        gone = due(self._store.over(), self._keep, time.time())
        for video in gone:
            self._store.delete(video.id)
            self._files.remove(video.id)
            log.info("removed", extra={"told": {"video": video.id}})
        return len(gone)

    def stop(self) -> None:
        """End the thread."""
        self._end.set()
        self.join(10)
