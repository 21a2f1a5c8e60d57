"""Where the files of a video lie. Names are made here, of ids that are made here: none is a client's."""

import re
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path

ID = re.compile(r"video_[0-9a-f]{32}")
VIDEO, STILL, THUMBNAIL, SPRITESHEET, LAST = "video.mp4", "video.png", "thumbnail.webp", "spritesheet.jpg", "last.png"
MEDIA_TYPES = {".mp4": "video/mp4", ".png": "image/png", ".webp": "image/webp", ".jpg": "image/jpeg"}
REFERENCE, SOURCE = "reference{}.npy", "source.npy"


def new_id() -> str:
    """An id that nobody can guess."""
    return f"video_{secrets.token_hex(16)}"


class Files:
    """The files of all videos, a folder each, below the folder `root`."""

    def __init__(self, root: Path):
        self.root = root / "videos"
        self.root.mkdir(parents=True, exist_ok=True)

    def folder(self, id: str) -> Path:
        """The folder of a video."""
        assert ID.fullmatch(id)  # of the store, never of a client
        return self.root / id

    def media(self, id: str) -> Path:
        """The video, or the image where it is one frame."""
        still = self.folder(id) / STILL
        return still if still.exists() else self.folder(id) / VIDEO

    def references(self, id: str, count: int) -> list[Path]:
        """The arrays that were given with a video."""
        return [self.folder(id) / REFERENCE.format(n) for n in range(count)]

    def source(self, id: str) -> Path:
        """The frames that a video goes on from."""
        return self.folder(id) / SOURCE

    def remove_source(self, id: str) -> None:
        """Remove the frames that a video went on from, which it now shows itself."""
        self.source(id).unlink(missing_ok=True)

    def size(self, id: str) -> int:
        """Bytes of all files of a video."""
        folder = self.folder(id)
        return sum(path.stat().st_size for path in folder.iterdir()) if folder.is_dir() else 0

    def remove(self, id: str) -> None:
        """Remove all files of a video."""
        shutil.rmtree(self.folder(id), ignore_errors=True)

    def sweep(self, known: Iterable[str]) -> int:
        """Remove the folders of videos that nobody knows any more; how many. known: the ids of those that stay."""
        known, swept = set(known), 0
        for path in self.root.iterdir():
            if ID.fullmatch(path.name) and path.name not in known:
                shutil.rmtree(path, ignore_errors=True)
                swept += 1
        return swept

    def free(self) -> int:
        """Bytes that are free on the disk."""
        return shutil.disk_usage(self.root).free
