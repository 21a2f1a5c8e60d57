"""Where a run keeps what it makes."""

from dataclasses import dataclass
from pathlib import Path

from etils import epath

# What a workdir that is a URL is answered.
LOCAL_WORKDIR = "name a folder on this machine; checkpoints alone may lie elsewhere, by --config.checkpoints=URL"


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
