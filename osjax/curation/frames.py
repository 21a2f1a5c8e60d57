"""Frames of files of unknown origin, one after the other, in constant memory."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
from av.filter import Graph

from osjax.data import opened
from osjax.data.shown import Viewer

CLOCK = Fraction(1, 90_000)  # seconds of a tick in filter graphs
LONGEST_GAP = 10.0  # seconds between two frames; a damaged time stamp may claim years


def timed(path: Path | str) -> Iterator[tuple[float, av.VideoFrame]]:
    """Gives (seconds since the first frame, frame) for every frame of the file `path`.

    Frames are as a player shows them: upright, of square pixels, BT.709 of limited range (`Viewer.plain`). Times rise
    strictly, sizes and formats stay the first's. Decodes on one thread: the caller works on several files. UserError
    for files that cannot be decoded to their end.
    """
    with opened.video(path) as (container, stream):
        viewer = Viewer(stream)
        yield from _steady((viewer.plain(frame) for frame in container.decode(stream)), 1 / rate(stream))


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
    """A chain of libavfilter `filters`, (name, arguments) each, for frames like `frame` with times in `CLOCK`.

    Frames are those of `timed`, whose colours the chain is told.
    """
    chain = Graph()
    how = f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base={CLOCK}"
    nodes = [chain.add("buffer", f"{how}:pixel_aspect=1/1:colorspace=bt709:range=tv")]
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
