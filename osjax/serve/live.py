"""What is known of videos that wait or run, in memory: steps, previews, time left; and who wants to be told.

The thread that works off the queue writes, requests read. A follower is woken and reads what is newest then: one that
is slow misses what is old and holds nothing up.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Live:
    """A video that is not over. preview: a small PNG. seconds_left: until it is finished; None where nobody knows."""

    step: int = 0
    steps: int = 0
    seconds_left: float | None = None
    preview: bytes | None = None
    number: int = 0  # of the change, which counts up


class Board:
    """The newest `Live` of each video."""

    def __init__(self):
        self._lock, self._videos, self._number = threading.Lock(), {}, 0
        self._followers: dict[asyncio.Event, str | None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._seconds: dict[str, float] = {}  # that a video of a kind took, the last ones most
        self.closed = False

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Followers are woken in this loop."""
        self._loop = loop

    def get(self, id: str) -> Live | None:
        """What is known of a video."""
        return self._videos.get(id)

    def put(self, id: str, **changes: object) -> None:
        """Change what is known of a video: fields of `Live`."""
        with self._lock:
            self._number += 1
            self._videos[id] = replace(self._videos.get(id, Live()), **changes, number=self._number)
        self.tell(id)

    def drop(self, id: str) -> None:
        """Forget a video that is over or waits again."""
        with self._lock:
            self._videos.pop(id, None)
        self.tell()

    def took(self, kind: str, seconds: float) -> None:
        """Learn how long a video of a kind took."""
        before = self._seconds.get(kind, seconds)
        self._seconds[kind] = 0.5 * before + 0.5 * seconds
        while len(self._seconds) > 1000:
            self._seconds.pop(next(iter(self._seconds)))

    def takes(self, kind: str) -> float | None:
        """Seconds that a video of a kind is known to take."""
        return self._seconds.get(kind)

    def tell(self, id: str | None = None) -> None:
        """Wake the followers of a video and of all videos; without an id everybody, as where places change."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._wake, id)

    def _wake(self, id: str | None) -> None:
        for follower, wants in self._followers.items():
            if id is None or wants is None or wants == id:
                follower.set()

    def close(self) -> None:
        """Wake all followers for the last time."""
        self.closed = True
        self.tell()

    @property
    def followers(self) -> int:
        """How many follow."""
        return len(self._followers)

    @contextlib.contextmanager
    def follow(self, id: str | None = None) -> Iterator[asyncio.Event]:
        """An event that is set at every change of a video, or of any, for the length of a block in the loop."""
        event = asyncio.Event()
        self._followers[event] = id
        try:
            yield event
        finally:
            self._followers.pop(event, None)


def left(started: float, step: int, steps: int, takes: float | None) -> float | None:
    """Seconds until a video is finished, None where nobody can know.

    started: when its first step was done, of `time.monotonic`: the steps before it hold compilation. step, steps: done,
    and to do. takes: what a whole one like it took, of which the same share is left where that is more.
    """
    usual = None if takes is None else takes * (1 - step / (steps + 1))
    if step < 2:
        return usual
    rest = (time.monotonic() - started) / (step - 1) * (steps - step)
    return rest if usual is None else max(rest, usual)
