"""Single frames of a video, decoded from the key frame before them rather than from the file's start.

A frame's number is its place in the order of presentation, so it is the one that decoding the whole file would give.
The packets' times say which packet holds it; reading them decodes nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from osjax.data import opened, picture
from osjax.data.shown import Viewer
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
        steps = self.times[1:] - self.times[:-1]
        if len(steps) < 2:
            return True
        usual = np.median(steps)
        return bool(np.abs(steps - usual).max() <= max(1, UNEVEN * usual))

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


def _packets(container: InputContainer, stream: VideoStream) -> list[av.Packet]:
    packets = []
    try:
        for packet in container.demux(stream):
            if packet.size:
                packets.append(packet)
            if len(packets) > opened.FRAMES:
                raise UserError(f"{container.name or 'a video'} has more than {opened.FRAMES} frames: cut it")
    except av.FFmpegError:
        if not packets:
            raise
    while packets and packets[-1].is_corrupt:  # the one in which a file was cut off
        packets.pop()
    return packets


@dataclass(frozen=True)
class Length:
    """How long a video is. frames: those that decode and are shown. whole: it goes on to the end that it states."""

    frames: int
    whole: bool


def length(container: InputContainer, stream: VideoStream) -> Length:
    """The length of an opened file by its packets; only what follows the last key frame is decoded.

    container, stream: see opened.py. Headers may state more: of files that were cut off, or whose edit lists leave
    frames out. Raw streams and damaged files, whose packets do not tell, are decoded to their end.
    """
    everything = _packets(container, stream)
    packets = [packet for packet in everything if not packet.is_discard]
    when, whole = timeline(packets), not stream.frames or len(everything) >= stream.frames
    if when is None or not len(when.keys):
        return Length(sum(1 for _ in _decoded(stream.codec_context, everything)), whole)
    last = when.keys[-1]
    if stream.duration and stream.time_base:
        missing = (stream.start_time or 0) + stream.duration - when.times[-1]
        whole = whole and float(missing * stream.time_base) <= 1.0 + 0.05 * float(stream.duration * stream.time_base)
    begin = next(number for number, packet in enumerate(packets) if packet.pts == last)
    tail = {frame.pts for frame in _decoded(stream.codec_context, packets[begin:])}
    before = int((when.times < last).sum())
    return Length(before + int(np.isin(when.times[before:], list(tail)).sum()), whole and bool(tail))


def decode_at(source: Path | str | bytes, at: np.ndarray) -> np.ndarray:
    """Frames number `at` (rising) of a video as uint8 (len(at), H, W, 3). source: a path or bytes, see `read`."""
    by_place = dict(read(source, at))
    return np.stack([by_place[place] for place in range(len(by_place))])


def read(source: Path | str | bytes, at: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Gives (place in `at`, frame as uint8 (H, W, 3)) for the frames number `at` (rising), one after the other.

    Frames come as a player shows them, see shown.py. All places come; where one comes again, the later frame
    counts. source: a path, or the bytes of a file. Decodes on one thread, as loaders read many clips at once.
    UserError naming the file when it holds no video, does not decode or has too few frames.
    """
    name = opened.name_of(source)
    at = np.asarray(at, np.int64)
    if picture.is_picture(source):
        if len(at) and at[-1] > 0:
            raise UserError(f"{name} is one picture and has no frame {at[-1]}: remove it from the table")
        image = picture.read(source)
        yield from ((place, image) for place in range(len(at)))
        return
    places, shape = set(), None
    with opened.video(source) as (container, stream):
        for place, image in _frames(container, stream, at):
            places.add(place)
            shape = shape or image.shape
            if image.shape != shape:
                raise UserError(f"{name} changes its size on the way: remove it from the table")
            yield place, image
    if len(places) < len(at):
        raise UserError(
            f"{name} has too few frames ({len(places)} of the {len(at)} up to frame {at[-1]}): remove it from the table"
        )


def _frames(container, stream, at: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    viewer, given = Viewer(stream), 0
    everything = _packets(container, stream)
    packets = [packet for packet in everything if not packet.is_discard]
    when = timeline(packets)
    if when is not None and len(when.times) > at[-1] and stream.codec_context is not None:
        times = when.times[when.resampled(at)]
        ends = {time: end for end, time in enumerate(times.tolist(), 1)}  # of the places that show a frame
        for frame in _wanted(stream.codec_context, packets, when, times):
            image = viewer(frame)
            for place in range(given, ends[frame.pts]):
                yield place, image
                given = place + 1
        if given == len(at):
            return
    for number, frame in enumerate(_from_start(container, stream, everything)):  # slow, but needs nothing but frames
        if number > at[-1]:
            return
        first, last = np.searchsorted(at, number), np.searchsorted(at, number, side="right")
        if first < last:
            image = viewer(frame)
            yield from ((place, image) for place in range(first, last))


def _wanted(decoder, packets: Sequence[av.Packet], when: Timeline, times: np.ndarray) -> Iterator[av.VideoFrame]:
    """The frames shown at `times` (rising), each once; ends early where one does not come at its time."""
    starts = {p.pts: n for n, p in enumerate(packets) if p.is_keyframe}
    frames, key = iter(()), None
    before = (np.searchsorted(when.keys, times, side="right") - 1).tolist()
    for time, nearest in dict(zip(times.tolist(), before, strict=True)).items():
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
    """Frames of packets in order, up to one that does not decode, such as the last of a file that was cut off."""
    try:
        for packet in packets:
            yield from decoder.decode(packet)
    except av.FFmpegError:
        pass
    yield from decoder.decode(None)


def _from_start(
    container: InputContainer, stream: VideoStream, packets: Sequence[av.Packet]
) -> Iterator[av.VideoFrame]:
    """Every frame of a file whose packets were all read; raw streams cannot be read again."""
    try:
        container.seek(0)
    except av.FFmpegError:
        if stream.codec_context.is_open:
            stream.codec_context.flush_buffers()
        yield from _decoded(stream.codec_context, packets)
        return
    yield from container.decode(stream)
