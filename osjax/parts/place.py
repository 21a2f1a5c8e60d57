"""Where a run keeps what it makes."""

from dataclasses import dataclass
from pathlib import Path

from etils import epath

from osjax.errors import UserError

# What a workdir that is a URL is answered.
LOCAL_WORKDIR = "name a folder on this machine; checkpoints alone may lie elsewhere, by --config.checkpoints=URL"
COPIED = "s3://"  # stores that Orbax cannot write: it writes to the workdir, and complete checkpoints are copied


@dataclass(frozen=True)
class Place:
    """The folders of a run.

    workdir: of metrics and samples, local. checkpoints: a folder for all stages' checkpoints: local, gs://, which Orbax
    writes, or s3://, which gets copies of those in the workdir. UserError for other URLs, of which Orbax makes local
    folders or fails late.
    """

    workdir: Path
    checkpoints: str

    def __post_init__(self):
        if "://" in self.checkpoints and not self.checkpoints.startswith(("gs://", COPIED)):
            raise UserError(
                f"config.checkpoints is {self.checkpoints}: checkpoints go to folders, gs:// and s3:// alone; name one "
                "of these, such as where that store is mounted",
                status=2,
            )

    @property
    def written(self) -> str:
        """The folder that Orbax writes all stages' checkpoints to."""
        return str(self.workdir) if self.checkpoints.startswith(COPIED) else self.checkpoints

    def of(self, stage: str) -> epath.Path:
        """Folder of a stage's checkpoints, as Orbax writes them."""
        return epath.Path(self.written) / stage / "checkpoints"

    def copy_of(self, stage: str) -> str | None:
        """URL of the copies of a stage's checkpoints; None where Orbax writes to where they belong."""
        if self.written == self.checkpoints:
            return None
        return f"{self.checkpoints.rstrip('/')}/{stage}/checkpoints"
