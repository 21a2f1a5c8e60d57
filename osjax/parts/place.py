"""Where a run keeps what it makes."""

from dataclasses import dataclass
from pathlib import Path

from etils import epath

from osjax.errors import UserError

# What a workdir that is a URL is answered.
LOCAL_WORKDIR = "name a folder on this machine; checkpoints alone may lie elsewhere, by --config.checkpoints=URL"


@dataclass(frozen=True)
class Place:
    """The folders of a run.

    workdir: of metrics and samples, local. checkpoints: a folder for all stages' checkpoints, local or gs://, which are
    what Orbax writes; UserError for other URLs, of which it makes local folders or fails late. local: a folder on each
    host's own disk, for checkpoints between those.
    """

    workdir: Path
    checkpoints: str
    local: Path | None = None

    def __post_init__(self):
        if "://" in self.checkpoints and not self.checkpoints.startswith("gs://"):
            raise UserError(
                f"config.checkpoints is {self.checkpoints}: checkpoints go to folders and to gs:// alone; name one of "
                "these, such as where that store is mounted",
                status=2,
            )

    def of(self, stage: str) -> epath.Path:
        """Folder of a stage's checkpoints."""
        return epath.Path(self.checkpoints) / stage / "checkpoints"
