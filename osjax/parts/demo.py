"""The config keys of the demo's report."""

from dataclasses import dataclass

from osjax.errors import UserError


@dataclass(frozen=True)
class DemoReport:
    """The `report` group of the demo's config: what is sampled for its report."""

    prompts: int = 64  # held-out prompts, each sampled at every motion score
    i2v: int = 16  # given first frames
    i2v_guidance: float = 1.5  # on the text with a given frame: more of it pulls away from the frame
    batch: int = 32  # videos at a time through the autoencoder

    def __post_init__(self):
        if min(self.prompts, self.i2v, self.batch) < 1 or self.i2v_guidance < 0:
            raise UserError(f"prompts {self.prompts}, i2v {self.i2v} and batch {self.batch} must be 1 or more")
