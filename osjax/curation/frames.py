"""Frames of files of unknown origin, one after the other, in constant memory."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
from av.filter import Graph

from osjax.errors import UserError

CLOCK = Fraction(1, 90_000)  # seconds of a tick in filter graphs
LONGEST_GAP = 10.0  # seconds between two frames; a damaged time stamp may claim years


def timed(path: Path | str) -> Iterator[tuple[float, av.VideoFrame]]:
    """Gives (seconds since the first frame, frame) for every frame of the file `path`.

    Times rise strictly, sizes and formats stay the first's. Decodes on one thread: the caller works on several files.
    UserError for files that cannot be decoded to their end.
    """
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise UserError(f"{path} holds no video")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            yield from _steady(container.decode(stream), 1 / rate(stream))
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UserError(f"{path} cannot be decoded ({error})") from error


def rate(stream) -> float:
    """Frames per second of a stream, 24 where its header says none or nonsense."""
    fps = float(stream.average_rate or stream.base_rate or 0)
    return fps if 1 <= fps <= 1000 else 24.0


def _steady(decoded, step: float) -> Iterator[tuple[float, av.VideoFrame]]:
    first, before, now = None, None, 0.0
    for frame in decoded:
        first = first or frame
        if frame.time is not None and before is not None:
            gap = frame.time - before
            now += gap if 0 < gap <= LONGEST_GAP else step
        elif first is not frame:
            now += step
        before = frame.time
        if (frame.width, frame.height, frame.format.name) != (first.width, first.height, first.format.name):
            frame = frame.reformat(first.width, first.height, first.format.name)
        yield now, frame


def graph(frame: av.VideoFrame, filters: Sequence[tuple[str, str]]) -> Graph:
    """A chain of libavfilter `filters`, (name, arguments) each, for frames like `frame` with times in `CLOCK`."""
    chain = Graph()
    nodes = [chain.add_buffer(width=frame.width, height=frame.height, format=frame.format.name, time_base=CLOCK)]
    nodes += [chain.add(name, arguments) for name, arguments in (*filters, ("buffersink", ""))]
    for one, other in zip(nodes, nodes[1:], strict=False):
        one.link_to(other)
    chain.configure()
    return chain


def push(chain: Graph, frame: av.VideoFrame | None, seconds: float = 0.0) -> list[av.VideoFrame]:
    """The frames that come out of a chain when `frame`, shown at `seconds`, goes in; None is the end."""
    if frame is not None:
        frame.pts, frame.time_base = round(seconds / CLOCK), CLOCK
    chain.push(frame)
    out = []
    while True:
        try:
            out.append(chain.pull())
        except (av.BlockingIOError, av.EOFError):
            return out
