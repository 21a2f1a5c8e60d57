"""What a distilled model can be asked for: the scales of guidance and the number of steps that it learned."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from osjax.errors import UserError
from osjax.flow.solvers import SOLVERS
from osjax.sampling.settings import SHIFTED, SampleSettings
from osjax.types import Json

EULER = next(iter(SOLVERS))


@dataclass(frozen=True)
class Distilled:
    """What was learned; None where that was not part of it.

    guidance, guidance_img: (lowest, highest) that the model is told. steps: of a sample.
    """

    guidance: tuple[float, float] | None = None
    guidance_img: tuple[float, float] | None = None
    steps: int | None = None

    def to_json(self) -> Json:
        """The fields as JSON values, which `of_json` takes."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def check(self, settings: SampleSettings) -> None:
        """UserError for settings that the model did not learn."""
        scales = [("guidance", self.guidance)]
        if settings.condition.references:
            scales.append(("guidance_img", self.guidance_img))
        for name, low_high in scales:
            value = getattr(settings, name)
            if low_high is not None and not low_high[0] <= value <= low_high[1]:
                raise UserError(
                    f"this model is distilled for {name} from {low_high[0]:g} to {low_high[1]:g}, not {value:g}: ask "
                    "for one of these, or sample from its teacher"
                )
        if self.guidance is not None and settings.negative:
            raise UserError("this model is distilled with an empty negative prompt: leave negative out")
        if self.steps is None:
            return
        if settings.steps != self.steps:
            raise UserError(f"this model is distilled for {self.steps} steps, not {settings.steps}: leave steps out")
        if settings.solver != EULER or settings.schedule != SHIFTED:
            raise UserError(f"a model of {self.steps} steps takes the solver {EULER} and the schedule {SHIFTED} alone")


def of_json(content: Mapping[str, Any]) -> Distilled | None:
    """What `Distilled.to_json` wrote; None for nothing. ValueError and TypeError for what is none.

    content: of a file.
    """
    if not content:
        return None
    scales = {}
    for name in ("guidance", "guidance_img"):
        if content.get(name) is not None:
            low, high = map(float, content[name])
            if not 0 <= low <= high:
                raise ValueError(f"distilled.{name} is no range")
            scales[name] = (low, high)
    steps = None if content.get("steps") is None else int(content["steps"])
    if steps is not None and steps < 1:
        raise ValueError("distilled.steps is below 1")
    return Distilled(**scales, steps=steps)
