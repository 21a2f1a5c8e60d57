"""A few frames of a clip, evenly spread, without decoding what lies between them where the file allows."""

from pathlib import Path

import av

from osjax.curation import frames
from osjax.curation.tables import Row
from osjax.errors import UserError


def uniform(row: Row, count: int) -> list[av.VideoFrame]:
    """`count` frames at the middles of as many equal parts of a clip. `row`: needs path.

    Seeks to the key frame before each. UserError for files that hold no frame there.
    """
    path = Path(row["path"])
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise UserError(f"{path} holds no video")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            if stream.duration:
                length = float(stream.duration * stream.time_base)
                picked = [_at(container, stream, length * (i + 0.5) / count) for i in range(count)]
            else:
                picked = _of_all(path, count)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UserError(f"{path} cannot be decoded ({error})") from error
    if any(frame is None for frame in picked):
        raise UserError(f"{path} holds no frame at one of {count} places")
    return picked


def _at(container, stream, seconds: float) -> av.VideoFrame | None:
    """The frame shown `seconds` after the start."""
    target = (stream.start_time or 0) + int(seconds / stream.time_base)
    container.seek(target, stream=stream, backward=True)
    last = None
    for frame in container.decode(stream):
        if last is not None and (frame.pts or 0) > target:
            return last
        last = frame
    return last


def _of_all(path: Path, count: int) -> list[av.VideoFrame]:
    """Frames of a file that does not state its length: it is read twice, to count and to pick."""
    total = sum(1 for _ in frames.timed(path))
    wanted = [int(total * (i + 0.5) / count) for i in range(count)]
    return [frame for i, (_, frame) in enumerate(frames.timed(path)) for _ in range(wanted.count(i))]
