"""Size tables and buckets: which resolution, frame count and aspect ratio a sample trains at.

Aspect names are width:height, sizes (height, width). Source: Open-Sora opensora/datasets/aspect.py and bucket.py.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from osjax.errors import UserError

LANDSCAPE = ("2.39:1", "2:1", "16:9", "1.85:1", "9:16", "5:8", "3:2", "4:3", "1:1")  # turned for the other half
ENOUGH_PIXELS = 0.8  # share of a resolution's pixels that a sample must have to train at it
NEVER = 1e-9  # probability that is a rounding error of others

Sizes = dict[str, tuple[int, int]]


class Bucket(NamedTuple):
    """One shape that the training step is traced for."""

    resolution: str
    num_frames: int
    aspect: str


@dataclass(frozen=True)
class Rule:
    """What becomes of a sample that fits. keep: probability to train at this resolution rather than a smaller one.
    skip: probability to try fewer frames instead, asked first (None: never, and no draw). batch_size: of the bucket."""

    keep: float
    batch_size: int
    skip: float | None = None


def pixels(resolution: str) -> int:
    """The number of pixels that a resolution names: "256px" is a square of that side, "720p" 16:9 of that height.

    resolution: a setting after "_" is ignored. UserError for other words.
    """
    name = resolution.split("_")[0]
    number = name.removesuffix("px").removesuffix("p")
    if not number.isdigit() or number == name:
        raise UserError(f"resolution {resolution!r} is not understood: write it like 256px or 720p")
    side = int(number)
    return side * side if name.endswith("px") else int(side * side / 9 * 16)


def sizes(total_pixels: int, multiple: int = 16, training: bool = True) -> Sizes:
    """The size table {aspect: (height, width)} of about `total_pixels` pixels.

    multiple: what heights and widths divide by, the autoencoder's spatial compression. training: move one side by one
    multiple where that comes closer, and leave out sizes seen already.
    """
    wide: Sizes = {}
    tall: Sizes = {}
    for name in LANDSCAPE:
        across, down = name.split(":")
        width = int(math.sqrt(total_pixels * (float(across) / float(down))) // multiple) * multiple
        height = int((total_pixels / width) // multiple) * multiple
        size = (height, width)
        if training:
            size = _nudged(size, total_pixels, multiple)
            if size in wide.values():
                continue
        wide[name] = size
        tall[f"{down}:{across}"] = size[1], size[0]
    return wide | tall


def _nudged(size: tuple[int, int], total_pixels: int, multiple: int) -> tuple[int, int]:
    """The nearest in pixels of a size and its four neighbours, each neighbour measured from the original size."""
    h, w = size
    choices = [(h, w), (h - multiple, w), (h + multiple, w), (h, w - multiple), (h, w + multiple)]
    return min(choices, key=lambda s: abs(s[0] * s[1] - total_pixels))  # min keeps the first of equals


def table(resolution: str, multiple: int = 16) -> Sizes:
    """The training sizes {aspect: (height, width)} of a resolution.

    resolution: "256px_ar1:1" is that aspect alone, "256px_max" the one with most pixels; UserError for other settings.
    multiple: what heights and widths divide by.
    """
    everything = sizes(pixels(resolution), multiple)
    _, _, setting = resolution.partition("_")
    if not setting:
        return everything
    if setting == "max":
        aspect = max(everything, key=lambda name: math.prod(everything[name]))
    elif setting.startswith("ar") and setting[2:] in everything:
        aspect = setting[2:]
    else:
        known = ", ".join(f"ar{name}" for name in everything)
        raise UserError(f"resolution {resolution!r}: the setting {setting!r} is unknown; take max or one of {known}")
    return {aspect: everything[aspect]}


def image_size(resolution: str, aspect: str, multiple: int = 16) -> tuple[int, int]:
    """The size (height, width) to generate at.

    resolution: such as 256px or 720p. aspect: such as 16:9; UserError for one that no table has. multiple: what both
    sides divide by.
    """
    everything = sizes(pixels(resolution), multiple, training=False)
    if aspect not in everything:
        raise UserError(f"aspect ratio {aspect!r} is unknown: take one of {', '.join(everything)}")
    return everything[aspect]


def ratio(aspect: str) -> float:
    """The ratio height / width of an aspect's name, width:height."""
    across, down = aspect.split(":")
    return float(down) / float(across)


def closest(height: float, width: float, names: Iterable[str]) -> str:
    """The aspect nearest in height / width among `names`, each width:height; the first of equals."""
    return min(names, key=lambda name: abs(height / width - ratio(name)))


def reduce_fps(fps: float, fps_max: float) -> tuple[float, int]:
    """The pair (rate after keeping every n-th frame, n) that brings `fps` to at most `fps_max`, both per second.

    (0, 1) for images, whose fps is NaN.
    """
    if math.isnan(fps):
        return 0, 1
    if fps < fps_max:
        return fps, 1
    interval = math.ceil(fps / fps_max)
    return math.floor(fps / interval), interval


class Buckets:
    """The buckets of a configuration, searched from the largest resolution down.

    config: {resolution: {frames: Rule}}. multiple: what heights and widths divide by. fps_max: frames per second, to
    which videos are brought by leaving out frames. aspects: the only aspect ratios, width:height; none: all of the
    table. count: of all buckets.
    """

    def __init__(
        self,
        config: Mapping[str, Mapping[int, Rule]],
        multiple: int = 16,
        fps_max: float = 24,
        aspects: Sequence[str] = (),
    ):
        self.multiple, self.fps_max = multiple, fps_max
        tables = {name: table(name, multiple) for name in sorted(config, key=pixels, reverse=True)}
        self.tables = {
            name: {a: s for a, s in sizes.items() if not aspects or a in aspects} for name, sizes in tables.items()
        }
        self.rules = {name: dict(sorted(config[name].items(), reverse=True)) for name in self.tables}
        self.count = sum(len(self.tables[name]) * len(rules) for name, rules in self.rules.items())

    def find(self, num_frames: int, height: int, width: int, fps: float, seed: int) -> Bucket | None:
        """The bucket of a sample, None if it fits nowhere.

        num_frames: 1 is an image, which only enters buckets of one frame; a video never does. height, width: pixels.
        fps: frames per second, NaN for images. seed: of its own draws, one for each rule that is tested.
        """
        rng = np.random.default_rng(seed)
        _, interval = reduce_fps(fps, self.fps_max)
        frames = num_frames // interval
        for name, rules in self.rules.items():
            if height * width < pixels(name) * ENOUGH_PIXELS:
                continue
            chosen = _image(rules, rng) if frames == 1 else _video(rules, frames, rng)
            if chosen is not None:
                return Bucket(name, chosen, closest(height, width, self.tables[name]))
        return None

    def odds(self, num_frames: int, height: int, width: int, fps: float) -> dict[Bucket | None, float]:
        """The probability of every bucket that `find` may give such a sample, None for fitting nowhere.

        num_frames, height, width, fps: as `find` takes them.
        """
        _, interval = reduce_fps(fps, self.fps_max)
        frames, left, out = num_frames // interval, 1.0, {}
        for name, rules in self.rules.items():
            if left <= NEVER:
                break
            if height * width < pixels(name) * ENOUGH_PIXELS:
                continue
            aspect = closest(height, width, self.tables[name])
            chosen = _image_odds(rules) if frames == 1 else _video_odds(rules, frames)
            for wanted, odds in chosen.items():
                if odds > 0:
                    out[Bucket(name, wanted, aspect)] = left * odds
            left *= 1 - sum(chosen.values())
        return {**out, None: left} if left > NEVER else out

    def shape(self, bucket: Bucket) -> tuple[int, int, int]:
        """The shape (frames, height, width) of a bucket's samples, in pixels."""
        return bucket.num_frames, *self.tables[bucket.resolution][bucket.aspect]

    def batch_size(self, bucket: Bucket) -> int:
        """Samples of one step in a bucket, of all hosts together."""
        return self.rules[bucket.resolution][bucket.num_frames].batch_size

    def every_shape(self) -> list[tuple[int, int, int, int, int]]:
        """The batch shapes (batch, frames, height, width, 3) of all buckets, to warm up or compile ahead."""
        return [
            (rule.batch_size, frames, height, width, 3)
            for name, rules in self.rules.items()
            for frames, rule in rules.items()
            for height, width in self.tables[name].values()
        ]


def _image(rules: Mapping[int, Rule], rng: np.random.Generator) -> int | None:
    if 1 in rules and (rules[1].keep >= 1 or rng.random() < rules[1].keep):
        return 1
    return None


def _video(rules: Mapping[int, Rule], frames: int, rng: np.random.Generator) -> int | None:
    """Frames to train at: the longest that fits and is not skipped. A failed `keep` leaves the resolution."""
    for wanted, rule in rules.items():
        if wanted == 1 or frames < wanted:
            continue
        if rule.skip is not None and _happens(rule.skip, rng):
            continue
        return wanted if _happens(rule.keep, rng) else None
    return None


def _image_odds(rules: Mapping[int, Rule]) -> dict[int, float]:
    """Probability of every number of frames that `_image` gives; what is missing to 1 leaves the resolution."""
    return {1: min(rules[1].keep, 1.0)} if 1 in rules else {}


def _video_odds(rules: Mapping[int, Rule], frames: int) -> dict[int, float]:
    """Probability of every number of frames that `_video` gives; what is missing to 1 leaves the resolution."""
    odds, here = {}, 1.0  # here: of coming as far as this rule
    for wanted, rule in rules.items():
        if wanted == 1 or frames < wanted:
            continue
        skip = 0.0 if rule.skip is None else min(rule.skip, 1.0)
        odds[wanted] = here * (1 - skip) * min(rule.keep, 1.0)
        here *= skip
    return odds


def _happens(probability: float, rng: np.random.Generator) -> bool:
    """Certain events draw nothing, which keeps the draws that follow in step with the original's."""
    return probability >= 1 or rng.random() <= probability
