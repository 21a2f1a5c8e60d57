"""First look at clips: which decode and fit, and why the others do not. Nothing is deleted."""

import logging
import math
from dataclasses import dataclass
from pathlib import Path

import av
from tqdm import tqdm

from osjax.curation import tables
from osjax.curation.tables import Row
from osjax.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Probed:
    """The rows of a table after a first look. kept: those with measured sizes. dropped: those with a `reason`."""

    kept: list[Row]
    dropped: list[Row]


def probe(source: Path | str, min_frames: int = 1, root: Path | str | None = None) -> Probed:
    """Probe every captioned clip of `source`: a table, or a folder (captions from a .txt beside each video).

    The quick look before a data set is built; `raw.py` has the rules for raw video. root: the folder that clips must
    lie in, see `tables.rows`.

    A clip that cannot be opened, holds no video or is shorter than `min_frames` is dropped, counted and named in the
    log. UserError when the table is not readable or the folder has no video.
    """
    kept, dropped = [], []
    rows = list(tables.rows(source, root))  # their errors come before a bar, and the bar knows how many there are
    for row in tqdm(rows, desc="probe", unit="clip", mininterval=1):
        try:
            measured = measure(Path(row["path"]))
            if measured["num_frames"] < min_frames:
                raise UserError(f"{row['path']} has {measured['num_frames']} frames, needs {min_frames}")
            if not str(row["text"] or "").strip():
                raise UserError(f"{row['path']} has no caption")
            kept.append({**row, **measured})
        except UserError as error:
            dropped.append({**row, "reason": str(error)})
            log.warning("dropped: %s", error)
    if dropped:
        log.warning("%d of %d clips dropped", len(dropped), len(dropped) + len(kept))
    return Probed(kept, dropped)


def measure(path: Path) -> Row:
    """The num_frames, height, width, aspect_ratio (h / w), resolution (pixels) and fps of the file `path`.

    One frame is decoded. fps is NaN for images, as buckets have it. Files whose header does not count their frames are
    decoded to the end. UserError for a file that is no video.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    if not path.stat().st_size:
        raise UserError(f"{path} is empty")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise UserError(f"{path} holds no video")
            stream = container.streams.video[0]
            frames = container.decode(stream)
            first = next(frames, None)
            if first is None:
                raise UserError(f"{path} holds no frame")
            count = stream.frames or 1 + sum(1 for _ in frames)
            fps = float(stream.average_rate or 0) if count > 1 else math.nan  # an image; its file claims 25
            height, width = first.height, first.width
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UserError(f"{path} cannot be decoded ({error})") from error
    return {
        "num_frames": count,
        "height": height,
        "width": width,
        "aspect_ratio": height / width,
        "resolution": height * width,
        "fps": fps,
    }
