"""Grain pipelines from data sets to batches of numpy rows, with a place that can be saved and set exactly."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import grain
import numpy as np

from osjax.data import frames, remote, seek, transforms
from osjax.data.buckets import reduce_fps
from osjax.data.caption import training_caption
from osjax.errors import UserError

log = logging.getLogger(__name__)
RESIZED = 2**20  # bytes of frames that are resized together
MAX_REPLACEMENTS = 20  # clips tried in place of a broken one before giving up


class ClipReader:
    """Record -> {"video": float32 (T, H, W, 3) in [-1, 1], "text": str, "index": int}.

    A record without bytes in `video` is read from its `path`, which may be a URL. One of a single frame is an image
    and resized as such. A clip that does not decode is replaced by another one (the same one on every run), counted
    in `broken` (index -> path) and named once in the log.

    fps_max: frames are left out by whole factors down to this rate at most (None: every frame).
    random_start: the window of frames starts anywhere, as for training, instead of at the clip's first frame.
    antialias: clips are made smaller without aliasing, which the original does not do.
    state_fps: captions end with the frame rate, and with the motion score where the record has one.
    members: indices that may replace a broken clip, such as those of its bucket (None: the records that follow it).
    """

    def __init__(
        self,
        source: Sequence[dict[str, Any]],
        num_frames: int,
        height: int,
        width: int,
        *,
        fps_max: float | None = None,
        random_start: bool = False,
        antialias: bool = False,
        state_fps: bool = False,
        members: Sequence[int] | None = None,
    ):
        self.source, self.num_frames, self.size = source, num_frames, (height, width)
        self.fps_max, self.random_start = fps_max, random_start
        self.antialias, self.state_fps, self.members = antialias, state_fps, members
        self.broken: dict[int, str] = {}

    def __call__(self, index: int, rng: np.random.Generator | None = None) -> dict[str, Any]:
        """The example of a record. rng: needed for a random start."""
        for attempt in range(MAX_REPLACEMENTS):
            at = self._candidate(int(index), attempt)
            record = self.source[at]
            try:
                pixels = self._pixels(record, rng)
            except UserError as error:
                if at not in self.broken:
                    self.broken[at] = _text(record["path"])
                    log.warning("clip %s replaced: %s", self.broken[at], error)
                continue
            return {"video": pixels, "text": self._caption(record), "index": at}
        raise UserError(
            f"{MAX_REPLACEMENTS} clips in a row do not decode, the last {_text(record['path'])}: probe the data"
        )

    def _candidate(self, index: int, attempt: int) -> int:
        if not attempt:
            return index
        if self.members is None:
            return (index + attempt) % len(self.source)
        # Of the index alone, so that a clip is always replaced by the same one.
        return int(self.members[np.random.default_rng((index, attempt)).integers(len(self.members))])

    def _caption(self, record: dict[str, Any]) -> str:
        text = _text(record["text"])
        if not self.state_fps:
            return text
        motion = float(record.get("motion", np.nan))
        return training_caption(text, float(record["fps"]), self.fps_max or np.inf, motion)

    def _pixels(self, record: dict[str, Any], rng: np.random.Generator | None) -> np.ndarray:
        content = record.get("video") or remote.read_bytes(_text(record["path"]))
        if int(record["num_frames"]) == 1:
            image = transforms.resize_crop_image(seek.decode_at(content, np.zeros(1, int))[0], *self.size)
            return image[None].astype(np.float32) / 127.5 - 1
        at = self._frames(record, rng)
        out = np.empty((len(at), *self.size, 3), np.float32)
        for places, images in _gathered(seek.read(content, at)):
            out[places] = transforms.resize_crop_clip(np.stack(images), *self.size, antialias=self.antialias)
        out /= 127.5
        out -= 1
        return out

    def _frames(self, record: dict[str, Any], rng: np.random.Generator | None) -> np.ndarray:
        total, interval = int(record["num_frames"]), 1
        if self.fps_max is not None:
            _, interval = reduce_fps(float(record["fps"]), self.fps_max)
        start = 0
        if self.random_start:
            start = int(rng.integers(frames.latest_start(total, self.num_frames, interval), endpoint=True))
        return frames.pick(total, self.num_frames, interval, start)


def _gathered(frames: Iterable[tuple[int, np.ndarray]]) -> Iterator[tuple[list[int], list[np.ndarray]]]:
    """Frames a few at a time: single small ones are slow to resize, whole clips of large ones fill the memory."""
    places, images = [], []
    for place, image in frames:
        places.append(place)
        images.append(image)
        if len(images) * image.nbytes >= RESIZED:
            yield places, images
            places, images = [], []
    if images:
        yield places, images


def _text(value: str | bytes) -> str:
    """Data sets of TFDS give bytes, tables text."""
    return value.decode() if isinstance(value, bytes) else value


def batches(
    num_records: int,
    read: Callable[[int, np.random.Generator], dict[str, Any]],
    batch_size: int,
    seed: int,
    *,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 2,
    collate: Callable[[dict[str, Any]], Any] = lambda batch: batch,
) -> "BatchIterator":
    """Endless shuffled batches. The global order depends on the seed alone; each process reads only its own rows.

    read: (index of a record, generator of this reading's own draws) -> example; the draws, too, depend on the seed
    and the place in the global order alone. batch_size: of all processes together. collate: last step on a batch of
    stacked values.
    """
    if batch_size % process_count:
        raise UserError(f"batch {batch_size} does not divide over {process_count} processes: use a multiple of it")
    if num_records < 1:
        raise UserError("the data set has no records: build it from at least one clip")
    order = grain.MapDataset.range(num_records).seed(seed).shuffle().repeat()
    examples = order.random_map(read)  # ahead of the split, so that draws are the same for any number of processes
    mine = examples[process_index::process_count].batch(batch_size // process_count)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return BatchIterator(mine.to_iter_dataset(options), collate)


class BatchIterator:
    """Iterator over collated batches; `get_state` and `set_state` carry the place as plain JSON values.

    dataset: iterates over batches, its iterators with `get_state` and `set_state`, as those of Grain.
    """

    def __init__(
        self, dataset: grain.IterDataset | Any, collate: Callable[[dict[str, Any]], Any] = lambda batch: batch
    ):
        self._iterator, self._collate = iter(dataset), collate

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self._collate(next(self._iterator))

    def get_state(self) -> dict[str, Any]:
        return self._iterator.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        self._iterator.set_state(state)


def read_features(source: Sequence[dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Reader of cached features (data/cache.py), with the caption as str."""

    def read(index: int, rng: np.random.Generator | None = None) -> dict[str, Any]:
        record = source[int(index)]
        return {**record, "text": record["text"].decode()}

    return read
