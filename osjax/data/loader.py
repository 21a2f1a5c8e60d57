"""Records of a data set to examples: the pixels that a window of frames shows, in this process or in others."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from osjax.data import frames, seek, transforms
from osjax.data.buckets import reduce_fps
from osjax.data.caption import training_caption
from osjax.data.opened import BROKEN
from osjax.data.workers import Lost, Workers
from osjax.errors import UserError
from osjax.types import Row

log = logging.getLogger(__name__)
MAX_REPLACEMENTS = 20  # clips tried in place of a broken one before giving up
MEMORY_GB = 16.0  # address space of a process that reads clips
TRIES = 2  # of a clip whose process died: one that ran out of memory, or was killed by hand, is no fault of the clip's


@dataclass(frozen=True)
class Window:
    """What of a clip an example shows: num_frames frames of height x width pixels.

    fps_max: frames are left out by whole factors down to this rate at most (None: every frame).
    random_start: the window of frames starts anywhere, as for training, instead of at the clip's first frame.
    exact: pixels may lie between the levels of 8 bits, as resizing gives them; float32, four times the memory.
    state_fps: the caption ends with the frame rate. state_motion: and with the motion score where the record has one.
    """

    num_frames: int
    height: int
    width: int
    fps_max: float | None = None
    random_start: bool = False
    exact: bool = False
    state_fps: bool = False
    state_motion: bool = False

    @property
    def bytes(self) -> int:
        """Bytes of a clip's pixels."""
        return self.num_frames * self.height * self.width * 3 * (4 if self.exact else 1)


@dataclass(frozen=True)
class Undecodable:
    """A record whose clip gives no example. rng: the generator after what was drawn for it."""

    path: str
    reason: str
    rng: np.random.Generator | None


def read_record(
    source: Sequence[Row], window: Window, index: int, rng: np.random.Generator | None
) -> Row | Undecodable:
    """The example {"video" (T, H, W, 3), "text", "index"} of record number `index` of a data set.

    Pixels are levels from 0 to 255, uint8 or, where the window is exact, float32: `transforms.unit` and
    `host.pixels_to_global` make [-1, 1] of them. source: its records. window: what is shown of the clip. rng: draws
    where a random start begins. UserError for a damaged data set.
    """
    record = source[index]
    try:
        return {"video": _pixels(record, window, rng), "text": _caption(record, window), "index": index}
    except (UserError, *BROKEN) as error:  # of a file that was damaged, or of numbers that are not those of its file
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        return Undecodable(_name(record), reason, rng)


def _caption(record: Row, window: Window) -> str:
    text = _text(record["text"])
    if not (window.state_fps or window.state_motion):
        return text
    rate, motion = float(record["fps"]), float(record.get("motion", np.nan))
    return training_caption(text, rate, window.fps_max or np.inf, motion, window.state_fps, window.state_motion)


def _pixels(record: Row, window: Window, rng: np.random.Generator | None) -> np.ndarray:
    size = window.height, window.width
    content = record.get("video")
    if not content:
        raise UserError("its record holds no bytes")  # and its path may be that of another machine, or of another file
    if int(record["num_frames"]) == 1:
        image = transforms.resize_crop_image(seek.decode_at(content, np.zeros(1, int))[0], *size)
        return image[None].astype(np.float32 if window.exact else np.uint8)
    at = _frames(record, window, rng)
    out = np.empty((len(at), *size, 3), np.float32 if window.exact else np.uint8)
    for place, image in seek.read(content, at):
        out[place] = transforms.resize_crop_clip(image[None], *size, window.exact)[0]
    return out


def _frames(record: Row, window: Window, rng: np.random.Generator | None) -> np.ndarray:
    total, interval = int(record["num_frames"]), 1
    if window.fps_max is not None:
        _, interval = reduce_fps(float(record["fps"]), window.fps_max)
    start = 0
    if window.random_start:
        start = int(rng.integers(frames.latest_start(total, window.num_frames, interval), endpoint=True))
    return frames.pick(total, window.num_frames, interval, start)


@dataclass(frozen=True)
class ClipWorkers:
    """Processes that read clips of one data set, each within timeout_s seconds, and are replaced when they die or hang.

    source: picklable records; each process gets them once. count: of processes.
    """

    source: Sequence[Row]
    count: int
    timeout_s: float

    @cached_property
    def _workers(self) -> Workers:
        return Workers(self.count, partial(_hold, self.source), MEMORY_GB)

    def read(self, window: Window, index: int, rng: np.random.Generator | None) -> Row | Undecodable:
        """What `read_record` gives for this window, index and rng, read in a process.

        A clip on which a process hangs, or dies twice, is `Undecodable`.
        """
        for _ in range(TRIES):
            try:
                return self._workers.call(read_record, window, index, rng, timeout_s=self.timeout_s)
            except Lost as error:
                lost = error
                if error.late:
                    break
        return Undecodable(self._path(index), str(lost), rng)

    def _path(self, index: int) -> str:
        try:
            return self._workers.call(_path, index, timeout_s=self.timeout_s)
        except Lost:  # it may be the very reading of the record that hangs
            return f"number {index}"


def _hold(source: Sequence[Row]) -> Sequence[Row]:
    return source


def _path(source: Sequence[Row], index: int) -> str:
    return _name(source[index])


class ClipReader:
    """Record -> {"video": levels (T, H, W, 3), see `read_record`, "text": str, "index": int}.

    A record is read from its `video`, bytes or the path of a file, and never from its `path`, which is a name. One of
    a single frame is an image and resized as such. A clip that does not decode is replaced by another one (the same one
    on every run), counted in `broken` (index -> path) and named once in the log.

    source: records (video, path, text, num_frames, fps). window: what an example shows of a clip.
    workers: processes of the same source, which then read in place of the thread that asks.
    """

    def __init__(
        self,
        source: Sequence[Row],
        window: Window,
        workers: ClipWorkers | None = None,
    ):
        self.source, self.window = source, window
        self.broken: dict[int, str] = {}
        self._read = partial(read_record, source) if workers is None else workers.read

    def __call__(self, index: int, rng: np.random.Generator | None = None, members: Sequence[int] | None = None) -> Row:
        """The example of a record. index: of the record. rng: needed for a random start.

        members: indices that may replace a broken clip, such as those of its bucket (None: the records that follow it).
        UserError for a damaged data set, and where MAX_REPLACEMENTS clips in a row do not decode.
        """
        for attempt in range(MAX_REPLACEMENTS):
            at = self._candidate(int(index), attempt, members)
            example = self._read(self.window, at, rng)
            if not isinstance(example, Undecodable):
                return example
            rng = example.rng
            if at not in self.broken:
                self.broken[at] = example.path
                log.warning("clip %s replaced: %s", example.path, example.reason)
        raise UserError(f"{MAX_REPLACEMENTS} clips in a row do not decode, the last {example.path}: probe the data")

    def _candidate(self, index: int, attempt: int, members: Sequence[int] | None) -> int:
        if not attempt:
            return index
        if members is None:
            return (index + attempt) % len(self.source)
        # Of the index alone, so that a clip is always replaced by the same one.
        return int(members[np.random.default_rng((index, attempt)).integers(len(members))])


def _name(record: Row) -> str:
    path = record.get("path", "without a path")
    return path.decode(errors="replace") if isinstance(path, bytes) else str(path)


def _text(value: str | bytes) -> str:
    """Data sets of TFDS give bytes, tables text."""
    return value.decode() if isinstance(value, bytes) else value
