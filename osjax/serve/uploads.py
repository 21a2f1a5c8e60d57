"""Files of clients: read in a process of its own, and from then on arrays of our own making."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from osjax.conditioning import modes
from osjax.curation import isolate
from osjax.curation.tables import Row
from osjax.data import opened, picture, seek
from osjax.errors import UserError
from osjax.sampling import references
from osjax.serve import media
from osjax.serve.options import Limits
from osjax.types import Json

SUFFIX = ".mp4"  # of all of them; their content says what they are
SECONDS, MEMORY_GB, PROCESSES = 20.0, 8.0, 2


@dataclass(frozen=True)
class Look:
    """What a file is. kind: "image" or "video". settings: of a file that was made here, else None."""

    kind: str
    width: int
    height: int
    settings: Json | None = None


class Uploads:
    """Files of clients below `folder`, each for as long as its request. limits: of what is read."""

    def __init__(self, folder: Path, limits: Limits):
        self.folder, self.limits = folder / "uploads", limits
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.iterdir():  # of requests that were cut off
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        most = isolate.Limits(seconds=SECONDS, per_second=0.0, memory_gb=MEMORY_GB, workers=PROCESSES)
        self._pool = isolate.Pool(most, tells=False)  # its lines name files; answers say why
        self._pool.__enter__()

    def close(self) -> None:
        """End the processes."""
        self._pool.__exit__()

    def warm(self) -> None:
        """Start a process, whose imports take seconds; the other one is for when two clients come at once."""
        with contextlib.suppress(UserError):
            self._ask(_nothing, [{"path": str(self.folder)}])

    @contextlib.contextmanager
    def kept(self, file: BinaryIO) -> Iterator[Path]:
        """A file on the disk with the content of `file`, for a block's length. UserError where that is too much."""
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        if size > self.limits.upload_mb << 20:
            raise UserError(f"the file has {size} bytes, {self.limits.upload_mb} MB at most are read: make it smaller")
        path = self.folder / f"{secrets.token_hex(16)}{SUFFIX}"
        try:
            with path.open("wb") as out:
                shutil.copyfileobj(file, out, 2**20)
            yield path
        finally:
            path.unlink(missing_ok=True)

    def look(self, path: Path) -> Look:
        """What the file at `path` is. UserError where it is neither image nor video, or larger than the limits."""
        (row,) = self._ask(_look, [{"path": str(path), "limits": vars(self.limits)}])
        return Look(**row["look"])

    def take(self, paths: Sequence[Path], outs: Sequence[Path], mode: modes.Mode, how: dict[str, Any]) -> None:
        """Write what a mode takes of each file, at the size of the video, as an array that NumPy reads.

        paths, outs: from where to where, one for each reference of the mode. how: `size`, `causal` and `fps`, as
        `references.given` takes them. UserError for a file that has too few frames or does not decode.
        """
        rows = [
            {"path": str(path), "out": str(out), "mode": mode.name, "index": n, **how}
            for n, (path, out) in enumerate(zip(paths, outs, strict=True))
        ]
        self._ask(_take, rows)

    def frames(self, path: Path, out: Path, size: tuple[int, int], most: int) -> int:
        """Write all frames of a video at some size as an array that NumPy reads; how many.

        path, out: from where to where. size: (height, width). most: frames. UserError for a file that has more.
        """
        (row,) = self._ask(_frames, [{"path": str(path), "out": str(out), "size": size, "most": most}])
        return row["frames"]

    def _ask(self, function, rows: list[Row]) -> list[Row]:
        answers = self._pool.each(function, rows)
        for asked, row in zip(rows, answers, strict=True):
            if reason := row.get("reason"):
                why = str(reason).replace(asked["path"], "the file").removeprefix("quarantined: ")
                why = why.split(": remove it from the table")[0].split(": give another")[0]
                raise UserError(f"a reference cannot be used, {' '.join(why.split())[:300]}: give another file")
        return answers


def _nothing(row: Row) -> list[Row]:
    return [row]


def _look(row: Row) -> list[Row]:
    """The row with what its file is. Runs in the process that is apart."""
    path, limits = Path(row["path"]), row["limits"]
    if picture.is_picture(path):
        with Image.open(path, formats=picture.FORMATS) as image:
            (width, height), comment = image.size, image.info.get("comment")
        _bounded(width, height, limits)
        picture.read(path)
        told = media.settings_in(comment if isinstance(comment, str) else None)
        return [{**row, "look": {"kind": "image", "width": width, "height": height, "settings": told}}]
    with opened.video(path) as (container, stream):
        width, height = stream.width, stream.height
        _bounded(width, height, limits)
        if (seconds := (container.duration or 0) / 1e6) > limits["upload_seconds"]:
            raise UserError(f"the file has {seconds:.0f} seconds, {limits['upload_seconds']} at most are read")
        told = media.settings_in(container.metadata.get("comment"))
        next(iter(container.decode(stream)), None)
    return [{**row, "look": {"kind": "video", "width": width, "height": height, "settings": told}}]


def _bounded(width: int, height: int, limits: dict[str, Any]) -> None:
    if width * height > limits["upload_pixels"]:
        raise UserError(f"the file has frames of {width}x{height}, {limits['upload_pixels']} pixels at most are read")


def _take(row: Row) -> list[Row]:
    """Write what a reference takes of its file. Runs in the process that is apart."""
    reference, causal = modes.of(row["mode"]).references[row["index"]], row["causal"]
    clips = references.load(Path(row["path"]), *row["size"], references.taken(reference, causal, row["fps"]))
    _keep(Path(row["out"]), references.cut(reference, clips, causal))
    return [row]


def _frames(row: Row) -> list[Row]:
    """Write all frames of a video. Runs in the process that is apart."""
    path, most = Path(row["path"]), row["most"]
    if picture.is_picture(path):
        raise UserError("the file is a picture, and a video is to be made longer")
    with opened.video(path) as (container, stream):
        count = seek.length(container, stream).frames
    if count > most:
        raise UserError(f"the file has {count} frames, {most} at most can be gone on from")
    (clip,) = references.load(path, *row["size"])
    if clip.dtype != np.uint8:  # it was scaled
        clip = np.clip(np.round((clip + 1) * 127.5), 0, 255).astype(np.uint8)
    _keep(Path(row["out"]), clip)
    return [{**row, "frames": len(clip)}]


def _keep(out: Path, frames_THWC: np.ndarray) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("wb") as file:
        np.save(file, frames_THWC, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
