"""What a stage's student learns of its teacher, the model that the stage starts from, from config keys."""

import math
from dataclasses import dataclass, replace
from typing import Any

from osjax.errors import UserError
from osjax.models.velocity import VideoConfig
from osjax.parts.groups import refuse
from osjax.training.distil import Parts, Scales

WHAT = ("guidance", "steps")


@dataclass(frozen=True)
class DistillKeys:
    """The `distill` group: the loss holds the model against the one that `start` gives, not against the clips."""

    what: str = ""  # guidance: told its scales, one call instead of three; steps: as few as the path has parts
    guidance: tuple[float, ...] = (1.0, 8.0)  # on the text, lowest and highest that the student is told
    guidance_img: tuple[float, ...] = (1.0, 4.0)  # on given frames; for models with guidance_img_embed
    steps: int = 4  # of the student, where `what` is steps
    inner: int = 5  # small steps of the teacher in each

    def __post_init__(self):
        if self.what not in ("", *WHAT):
            raise UserError(f"what is {self.what!r}: use one of {', '.join(WHAT)}, or leave it empty")
        for name in ("guidance", "guidance_img"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            low_high = getattr(self, name)
            numbers = len(low_high) == 2 and all(isinstance(x, int | float) for x in low_high)
            if not numbers or not 0 <= low_high[0] <= low_high[1] < math.inf:
                raise UserError(f"{name} is {low_high}: give the lowest and the highest scale, such as (1.0, 8.0)")
        if self.steps < 1 or self.inner < 1:
            raise UserError(f"steps {self.steps} and inner {self.inner} must be 1 or more")


@dataclass(frozen=True)
class Taught:
    """What is learned of which teacher. teacher: config of its model. what, scales: as `distil.Lesson` has them."""

    teacher: VideoConfig
    what: Scales | Parts
    scales: Scales | None


def of_keys(keys: DistillKeys, model: Any, begins: bool, alpha: float | None) -> Taught | None:
    """What a group asks for; None where it asks for nothing.

    keys: of the group. model: config of the student. begins: whether the stage starts from a model. alpha: of the times
    that are sampled. UserError for what nothing would read, and for a student that cannot learn it.
    """
    if not keys.what:
        refuse(keys, "distill", ("what",), "distill.what is empty")
        return None
    if not begins:
        raise UserError("distill holds the student against the model that it starts from: give start.stage", status=2)
    inputs = model.inputs
    if not inputs.guidance_img:
        read = ("what", "guidance", "steps", "inner")
        refuse(keys, "distill", read, "model.guidance_img_embed is off")
    if not inputs.guidance:
        read = ("what", "steps", "inner")
        refuse(keys, "distill", read, "model.guidance_embed is off")
    low_high = tuple(map(float, keys.guidance))
    images = tuple(map(float, keys.guidance_img)) if inputs.guidance_img else None
    scales = Scales(low_high, images) if inputs.guidance else None
    if keys.what == "guidance":
        refuse(keys, "distill", ("what", "guidance", "guidance_img"), "distill.what is guidance")
        if scales is None:
            raise UserError("distill.what guidance teaches a model that is told it: set model.guidance_embed", status=2)
        return Taught(replace(model, guidance_embed=False, guidance_img_embed=False), scales, None)
    return Taught(model, Parts(keys.steps, keys.inner, alpha), scales)


def said(keys: DistillKeys, taught: Taught, before: Any) -> dict[str, Any]:
    """What samples of the student can be asked for, as `model.json` holds it.

    keys: of the group. taught: what it learned. before: the same of the stage that it started from, or None.
    """
    told = dict(before or {})
    if isinstance(taught.what, Scales) or taught.scales is not None:
        told["guidance"] = list(map(float, keys.guidance))
        if taught.teacher.inputs.guidance_img or (isinstance(taught.what, Scales) and taught.what.image):
            told["guidance_img"] = list(map(float, keys.guidance_img))
    if isinstance(taught.what, Parts):
        told |= {"steps": taught.what.steps}
    return told
