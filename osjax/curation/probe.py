"""First look at clips: which decode and fit, and why the others do not. Nothing is deleted."""

import logging
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from osjax.curation import tables
from osjax.curation.isolate import Limits, Pool
from osjax.curation.tables import Row
from osjax.data import opened, picture, seek
from osjax.data.shown import Viewer
from osjax.errors import UserError

log = logging.getLogger(__name__)
LARGEST = 2_000_000_000  # bytes of a clip: a record of a data set holds it whole
AT_ONCE = 64  # clips between two movements of the bar


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
    log, as is one that ends or stops the process that looks at it. UserError when the table is not readable or the
    folder has no video.
    """
    rows = list(tables.rows(source, root))  # their errors come before a bar, and the bar knows how many there are
    kept, dropped = [], []
    with Pool(Limits()) as pool, tqdm(total=len(rows), desc="probe", unit="clip", mininterval=1) as bar:
        for chunk in tables.shards(rows, AT_ONCE):
            for row in pool.each(partial(_fitting, min_frames=min_frames), chunk):
                (dropped if row.get("reason") else kept).append(row)
            bar.update(len(chunk))
    if dropped:
        log.warning("%d of %d clips dropped", len(dropped), len(dropped) + len(kept))
    return Probed(kept, dropped)


def _fitting(row: Row, min_frames: int) -> list[Row]:
    (measured,) = look(row)
    if measured["num_frames"] < min_frames:
        raise UserError(f"{row['path']} has {measured['num_frames']} frames, needs {min_frames}")
    if not str(row["text"] or "").strip():
        why = f": {row['text_reason']}" if row.get("text_reason") else ""
        raise UserError(f"{row['path']} has no caption{why}")
    return [measured]


def look(row: Row) -> list[Row]:
    """The row with what `measure` gives of its `path`. row, UserError: as `Pool.each` takes and expects them."""
    path = Path(row["path"])
    if path.is_file() and path.stat().st_size > LARGEST:
        raise UserError(
            f"{path} has {path.stat().st_size} bytes, {LARGEST} at most are one clip: cut it by osjax data cut"
        )
    return [{**row, **measure(path)}]


def measure(path: Path) -> Row:
    """The num_frames, height, width, aspect_ratio (h / w), resolution (pixels) and fps of the file `path`, as shown.

    Sizes are those that a player shows: upright, of square pixels. Frames are those that decode: of a file that was cut
    off, what is there. fps is NaN for images, as buckets have it. UserError for a file that is neither video nor image.
    """
    return looked_at(path)[0]


def looked_at(path: Path) -> tuple[Row, seek.Length | None]:
    """What `measure` gives of the file `path`, and the length that its packets tell; None for images."""
    if not path.is_file():
        raise UserError(f"{path} {'is no file' if path.exists() else 'does not exist'}")
    if not path.stat().st_size:
        raise UserError(f"{path} is empty")
    if picture.is_picture(path):
        height, width, _ = picture.read(path).shape
        return _row(1, height, width, math.nan), None
    with opened.video(path) as (container, stream):
        first = next(container.decode(stream), None)
        if first is None:
            raise UserError(f"{path} holds no frame")
        height, width = Viewer(stream).size(first)
    with opened.video(path) as (container, stream):  # again: raw streams have no way back
        length = seek.length(container, stream)
        fps = float(stream.average_rate or 0) if length.frames > 1 else math.nan  # an image; its file claims 25
    if not length.frames:
        raise UserError(f"{path} holds no frame that decodes")
    return _row(length.frames, height, width, fps), length


def _row(frames: int, height: int, width: int, fps: float) -> Row:
    return {
        "num_frames": frames,
        "height": height,
        "width": width,
        "aspect_ratio": height / width,
        "resolution": height * width,
        "fps": fps,
    }
