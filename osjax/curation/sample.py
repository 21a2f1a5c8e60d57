"""A few frames of a clip, evenly spread, without decoding what lies between them where the file allows."""

from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from osjax.curation.tables import Row
from osjax.data import opened, picture
from osjax.data.shown import Viewer
from osjax.errors import UserError


def uniform(row: Row, count: int) -> list[np.ndarray]:
    """`count` frames at the middles of as many equal parts of a clip, as a player shows them: uint8 (H, W, 3).

    row: needs path. Seeks to the key frame before each. UserError for files that hold no frame there.
    """
    path = Path(row["path"])
    if picture.is_picture(path):
        return [picture.read(path)] * count
    with opened.video(path) as (container, stream):
        viewer = Viewer(stream)
        if not stream.duration:
            return _of_all(path, count)
        length = float(stream.duration * stream.time_base)
        picked = [_at(container, stream, length * (i + 0.5) / count) for i in range(count)]
        if any(frame is None for frame in picked):
            raise UserError(f"{path} holds no frame at one of {count} places")
        return [viewer(frame) for frame in picked]


def _at(container: InputContainer, stream: VideoStream, seconds: float) -> av.VideoFrame | None:
    """The frame shown `seconds` after the start."""
    target = (stream.start_time or 0) + int(seconds / stream.time_base)
    container.seek(target, stream=stream, backward=True)
    last = None
    for frame in container.decode(stream):
        if last is not None and (frame.pts or 0) > target:
            return last
        last = frame
    return last


def _of_all(path: Path, count: int) -> list[np.ndarray]:
    """Frames of a file that does not state its length: it is read twice, to count and to pick."""
    with opened.video(path) as (container, stream):
        total = sum(1 for _ in container.decode(stream))
    if not total:
        raise UserError(f"{path} holds no frame")
    wanted = [int(total * (i + 0.5) / count) for i in range(count)]
    with opened.video(path) as (container, stream):
        viewer, picked = Viewer(stream), []
        for number, frame in enumerate(container.decode(stream)):
            if number in wanted:
                picked += [viewer(frame)] * wanted.count(number)
    return picked
