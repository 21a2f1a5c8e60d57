"""What a model was trained on, as far as a prompt or a size can be unlike it: warnings before anything is sampled.

They are hints. A model may well do more than it was shown; who asks for it should know that it is more.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from osjax.conditioning.text import words_of
from osjax.types import Json

FAR = 1.5  # times as large, as long or as wide as the nearest that was trained on
SHOWN = 8  # of each kind in a warning


@dataclass(frozen=True)
class Trained:
    """What a run trained on.

    shapes: (frames, height, width) of its buckets. words: all that its captions have, lower-cased, where the built-in
    encoder reads them; it gives a word that never came a direction that means nothing. trigger: the word that stands
    for what is new, empty where there is none. clips: how many. data: what tells the data set from others.
    """

    shapes: tuple[tuple[int, int, int], ...] = ()
    words: tuple[str, ...] = ()
    trigger: str = ""
    clips: int = 0
    data: str = ""

    def to_json(self) -> Json:
        """The fields as JSON values, which `of_json` takes."""
        return asdict(self)

    def unlike(self, prompts: Sequence[str], frames: int, height: int, width: int) -> list[str]:
        """What is unlike training, a line each that says what was trained; none where nothing is.

        prompts: of the samples. frames, height, width: of the samples, in pixels.
        """
        lines = []
        if self.words:
            known = set(self.words)
            new = dict.fromkeys(word for text in prompts for word in words_of(text) if word not in known)
            if new:
                lines.append(
                    f"the model never met {_some(new)}, and takes such words for noise: it was trained on the words "
                    f"{_some(self.words, 60)}"
                )
        lost = [text for text in prompts if self.trigger.casefold() not in text.casefold()]
        if self.trigger and lost:
            lack = "the prompt lacks" if len(prompts) == 1 else f"{len(lost)} of {len(prompts)} prompts lack"
            lines.append(f"{lack} {self.trigger!r}, the word that the adapters were trained with")
        return [*lines, *self._far(frames, height, width)]

    def _far(self, frames: int, height: int, width: int) -> list[str]:
        if not self.shapes:
            return []
        lines = []
        lengths = sorted({T for T, _, _ in self.shapes})
        if min(_ratio(frames, T) for T in lengths) > FAR:
            lines.append(f"{frames} frames are far from those trained on: {_some(map(str, lengths))}")
        sizes = sorted({(H, W) for _, H, W in self.shapes}, key=lambda size: _unlike(size, (height, width)))
        if _unlike(sizes[0], (height, width)) > FAR:
            shown = _some(f"{W}x{H}" for H, W in sizes)
            lines.append(f"{width}x{height} pixels are far from those trained on, of which the nearest are {shown}")
        return lines


def of_json(content: Mapping[str, Any]) -> Trained:
    """What `Trained.to_json` wrote. content: of a file. ValueError, TypeError and AttributeError for what is none."""
    shapes = tuple((int(T), int(H), int(W)) for T, H, W in content.get("shapes", ()))
    if any(side < 1 for shape in shapes for side in shape):
        raise ValueError("trained.shapes has a side that is none")
    words = tuple(str(word) for word in content.get("words", ()))
    rest = str(content.get("trigger", "")), int(content.get("clips", 0)), str(content.get("data", ""))
    return Trained(shapes, words, *rest)


def _ratio(a: float, b: float) -> float:
    return max(a / b, b / a)


def _unlike(size: tuple[int, int], other: tuple[int, int]) -> float:
    """How many times one (height, width) has the side of the other, or its aspect ratio: whichever is more."""
    (H, W), (h, w) = size, other
    return max(math.sqrt(_ratio(H * W, h * w)), _ratio(W / H, w / h))


def _some(names: Any, most: int = SHOWN) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
