"""Single frames of a video, decoded from the key frame before them rather than from the file's start.

A frame's number is its place in the order of presentation, so it is the one that decoding the whole file would give.
The packets' times say which packet holds it; reading them decodes nothing.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import av.video.reformatter
import numpy as np

from osjax.errors import UserError

UNEVEN = 0.5  # share of a frame's time by which a step between frames may differ before the rate counts as variable


@dataclass(frozen=True)
class Timeline:
    """When frames are shown, in units of the stream's time base. keys: of those that decode without others."""

    times: np.ndarray
    keys: np.ndarray

    @property
    def even(self) -> bool:
        """Whether the frame rate is constant."""
        steps = np.diff(self.times)
        return len(steps) < 2 or bool(np.abs(steps - np.median(steps)).max() <= max(1, UNEVEN * np.median(steps)))

    def resampled(self, at: np.ndarray) -> np.ndarray:
        """Numbers of the frames shown at `at`, places on a scale of as many equal steps as there are frames.

        At a constant rate those are the frames themselves. At a variable one a long frame is given several times and
        short ones are passed over, so that motion keeps its speed.
        """
        if self.even:
            return at
        times = self.times.astype(np.float64)
        scale = (times[-1] - times[0]) / (len(times) - 1)
        return np.searchsorted(times, times[0] + at * scale + 1e-6 * scale, side="right") - 1


def timeline(packets: Sequence[av.Packet]) -> Timeline | None:
    """The times of all frames; None where packets do not tell, as in damaged or streamed files."""
    if not packets or any(p.pts is None or p.is_corrupt for p in packets):
        return None
    times = np.array([p.pts for p in packets])
    if len(np.unique(times)) != len(times):
        return None
    return Timeline(np.sort(times), np.sort([p.pts for p in packets if p.is_keyframe]))


def decode_at(source: Path | str | bytes, at: np.ndarray) -> np.ndarray:
    """Frames number `at` (rising) of a video as uint8 (len(at), H, W, 3). source: a path or bytes, see `read`."""
    by_place = dict(read(source, at))
    return np.stack([by_place[place] for place in range(len(by_place))])


def read(source: Path | str | bytes, at: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Gives (place in `at`, frame as uint8 (H, W, 3)) for the frames number `at` (rising), one after the other.

    Frames come upright where the file says that it is turned. All places come; where one comes again, the later frame
    counts. source: a path, or the bytes of a file. Decodes on one thread, as loaders read many clips at once.
    UserError naming the file when it holds no video, does not decode or has too few frames.
    """
    name = "video bytes" if isinstance(source, bytes) else str(source)
    at = np.asarray(at, np.int64)
    places, shape = set(), None
    try:
        with av.open(io.BytesIO(source) if isinstance(source, bytes) else str(source)) as container:
            if not container.streams.video:
                raise UserError(f"{name} holds no video: remove it from the table")
            stream = container.streams.video[0]
            stream.thread_count = 1
            for place, image in _frames(container, stream, at):
                places.add(place)
                shape = shape or image.shape
                if image.shape != shape:
                    raise UserError(f"{name} changes its size on the way: remove it from the table")
                yield place, image
    except (av.FFmpegError, OSError, ValueError, MemoryError, OverflowError) as error:
        raise UserError(f"{name} cannot be decoded ({error}): remove it from the table or make it anew") from error
    if len(places) < len(at):
        raise UserError(
            f"{name} has too few frames ({len(places)} of the {len(at)} up to frame {at[-1]}): remove it from the table"
        )


def _frames(container, stream, at: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    upright, given = Upright(), 0
    packets = [p for p in container.demux(stream) if p.size and not p.is_discard]
    when = timeline(packets)
    if when is not None and len(when.times) > at[-1] and stream.codec_context is not None:
        times = when.times[when.resampled(at)]
        for frame in _wanted(stream.codec_context, packets, when, times):
            image = upright(frame)
            for place in range(given, int(np.searchsorted(times, frame.pts, side="right"))):
                yield place, image
                given = place + 1
        if given == len(at):
            return
    container.seek(0)  # the slow way, which needs nothing but frames
    for number, frame in enumerate(container.decode(stream)):
        if number > at[-1]:
            return
        first, last = np.searchsorted(at, number), np.searchsorted(at, number, side="right")
        if first < last:
            image = upright(frame)
            yield from ((place, image) for place in range(first, last))


def _wanted(decoder, packets: Sequence[av.Packet], when: Timeline, times: np.ndarray) -> Iterator[av.VideoFrame]:
    """The frames shown at `times` (rising), each once; ends early where one does not come at its time."""
    starts = {p.pts: n for n, p in enumerate(packets) if p.is_keyframe}
    frames, key = iter(()), None
    for time in dict.fromkeys(times.tolist()):
        nearest = np.searchsorted(when.keys, time, side="right") - 1
        if nearest < 0:
            return
        if key is None or nearest > key:  # nothing between here and that key frame is needed
            if key is not None:
                decoder.flush_buffers()
            frames, key = _decoded(decoder, packets[starts[int(when.keys[nearest])] :]), nearest
        for frame in frames:
            if frame.pts is None or frame.pts > time:
                return
            if frame.pts == time:
                yield frame
                break
        else:
            return


def _decoded(decoder, packets: Sequence[av.Packet]) -> Iterator[av.VideoFrame]:
    for packet in packets:
        yield from decoder.decode(packet)
    yield from decoder.decode(None)


class Upright:
    """Makes a frame uint8 (H, W, 3), 8 bits whatever the file has, turned as the frame's display matrix says.

    One object for a video's frames: it keeps what it needs to convert them, which costs more to set up than a small
    frame to convert.
    """

    def __init__(self):
        self._convert = av.video.reformatter.VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        image = self._convert.reformat(frame, format="rgb24", threads=1).to_ndarray()
        turns = round(frame.rotation / 90) % 4  # counter-clockwise
        return np.ascontiguousarray(np.rot90(image, turns)) if turns else image
