"""Where a run keeps what it makes."""

from dataclasses import dataclass
from pathlib import Path

from etils import epath


@dataclass(frozen=True)
class Place:
    """The folders of a run.

    workdir: of metrics and samples, local. checkpoints: a folder for all stages' checkpoints, local or gs:// or s3://.
    """

    workdir: Path
    checkpoints: str

    def of(self, stage: str) -> epath.Path:
        """Folder of a stage's checkpoints."""
        return epath.Path(self.checkpoints) / stage / "checkpoints"
