"""The procedural clips that a run without data of its own asks for."""

from dataclasses import dataclass

from osjax.errors import UserError
from osjax.parts.groups import refuse


@dataclass(frozen=True)
class ClipSet:
    """Captioned clips of moving shapes, rendered into the workdir; see `osjax.data.clips`."""

    train: int = 0  # number of clips; 0 makes none
    held_out: int = 0  # clips of combinations that training never shows
    frames: int = 8
    size: int = 64  # pixels of a side
    fps: int = 8
    seed: int = 0

    def __post_init__(self):
        for name in ("train", "held_out", "seed"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} is {getattr(self, name)}: give 0 or more", status=2)
        for name in ("frames", "size", "fps"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}: give 1 or more", status=2)
        if not (self.train or self.held_out):
            refuse(self, "clips", ("train", "held_out"), "no clips are made (clips.train and clips.held_out are 0)")
