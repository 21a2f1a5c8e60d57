"""Single frames of a video, decoded from the key frame before them rather than from the file's start.

A frame's number is its place in the order of presentation, so it is the one that decoding the whole file would give.
The packets' times say which packet holds it; reading them decodes nothing.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import av
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


def timeline(container: av.container.InputContainer, stream: av.VideoStream) -> Timeline | None:
    """The times of all frames; None where packets do not tell, as in damaged or streamed files."""
    packets = [p for p in container.demux(stream) if p.size and not p.is_discard]
    if not packets or any(p.pts is None or p.is_corrupt for p in packets):
        return None
    times = np.array([p.pts for p in packets])
    if len(np.unique(times)) != len(times):
        return None
    return Timeline(np.sort(times), np.sort([p.pts for p in packets if p.is_keyframe]))


def decode_at(source: Path | str | bytes, at: np.ndarray, threads: int = 1) -> np.ndarray:
    """Frames number `at` (rising) as uint8 (len(at), H, W, 3), upright where the file says that it is turned.

    source: a path, or the bytes of a file. threads: of the decoder; one, as loaders decode many clips at a time.
    UserError naming the file when it holds no video, does not decode or has too few frames.
    """
    name = "video bytes" if isinstance(source, bytes) else str(source)
    at = np.asarray(at, np.int64)
    try:
        with av.open(io.BytesIO(source) if isinstance(source, bytes) else str(source)) as container:
            if not container.streams.video:
                raise UserError(f"{name} holds no video: remove it from the table")
            stream = container.streams.video[0]
            stream.thread_count = threads
            found = None
            when = timeline(container, stream)
            if when is not None and len(when.times) > at[-1]:
                found = _seek(container, stream, when, when.resampled(at))
            if found is None:  # the slow way, which needs nothing but frames
                container.seek(0)
                found = _count(container, stream, at)
    except (av.FFmpegError, OSError, ValueError, MemoryError, OverflowError) as error:
        raise UserError(f"{name} cannot be decoded ({error}): remove it from the table or make it anew") from error
    if len(found) < len(at):
        raise UserError(
            f"{name} has too few frames ({len(found)} of the {len(at)} up to frame {at[-1]}): remove it from the table"
        )
    if len({image.shape for image in found}) != 1:
        raise UserError(f"{name} changes its size on the way: remove it from the table")
    return np.stack(found)


def _seek(container, stream, when: Timeline, numbers: np.ndarray) -> list[np.ndarray] | None:
    """Frames by number; None where a frame does not come at its time."""
    found: dict[int, np.ndarray] = {}
    wanted = [int(t) for t in dict.fromkeys(when.times[numbers].tolist())]
    frames, key = iter(()), None
    for time in wanted:
        nearest = np.searchsorted(when.keys, time, side="right") - 1
        if nearest < 0:
            return None
        if key is None or nearest > key:  # nothing between here and that key frame is needed
            container.seek(int(when.keys[nearest]), stream=stream, backward=True)
            frames, key = container.decode(stream), nearest
        for frame in frames:
            if frame.pts is None or frame.pts > time:
                return None
            if frame.pts == time:
                found[time] = upright(frame)
                break
        else:
            return None
    return [found[int(t)] for t in when.times[numbers]]


def _count(container, stream, at: np.ndarray) -> list[np.ndarray]:
    wanted, found = set(at.tolist()), {}
    for number, frame in enumerate(container.decode(stream)):
        if number in wanted:
            found[number] = upright(frame)
        if number >= at[-1]:
            break
    return [found[n] for n in at.tolist() if n in found]


def upright(frame: av.VideoFrame) -> np.ndarray:
    """uint8 (H, W, 3), 8 bits whatever the file has, turned as the frame's display matrix says."""
    image = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90) % 4  # counter-clockwise
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image
