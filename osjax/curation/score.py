"""Scores of clips: motion, blur, camera jitter, text, beauty, and a hash that finds near-duplicates.

Source: Open-Sora 2.0 report, section 2 and appendix (vmafmotion of libavfilter; variance of OpenCV's Laplacian on five
frames by majority; PySceneDetect's change from frame to frame; text boxes with confidence > 0.7; CLIP + MLP on the
first, middle and last frame).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import av
import numpy as np

from osjax.curation import frames, sample
from osjax.curation.blur import blur
from osjax.curation.duplicates import perceptual_hash
from osjax.curation.isolate import Pool, need
from osjax.curation.jitter import Jitter
from osjax.curation.motion import Motion
from osjax.curation.tables import Row
from osjax.curation.text_area import text_area

SAMPLED = 5  # frames, evenly spread; a judge sees the first, middle and last of them


class Running(Protocol):
    """A score of one clip while its frames are read."""

    def add(self, frame: av.VideoFrame, seconds: float) -> None:
        """Take the next frame, shown `seconds` after the first."""
        ...

    def value(self) -> float:
        """The score, after all frames."""
        ...


@dataclass(frozen=True)
class OfAllFrames:
    """A score that sees every frame. begin: for each clip. needs: (module, extra) of the library behind it."""

    begin: Callable[[], Running]
    needs: tuple[str, str] | None = None


@dataclass(frozen=True)
class OfSampled:
    """A score of SAMPLED frames. measure: of uint8 (H, W, 3) each. needs: (module, extra) of the library behind it."""

    measure: Callable[[Sequence[np.ndarray]], float | str]
    needs: tuple[str, str] | None = None


@dataclass(frozen=True)
class Judged:
    """A score by a model, the mean over three frames. `work` is given the model: it runs in this process, once."""

    needs: None = None


SCORES: dict[str, OfAllFrames | OfSampled | Judged] = {
    "motion": OfAllFrames(Motion),
    "jitter": OfAllFrames(Jitter, ("scenedetect", "data")),
    "blur": OfSampled(blur),
    "hash": OfSampled(perceptual_hash, ("imagehash", "data")),
    "text_area": OfSampled(text_area, ("rapidocr", "ocr")),
    "aesthetic": Judged(),
}


class Judge(Protocol):
    """A model that scores frames, uint8 (N, H, W, 3) -> N numbers. Picklable, for runners elsewhere."""

    def __call__(self, frames_NHWC: np.ndarray) -> np.ndarray: ...

    def fingerprint(self) -> str:
        """What the scores depend on, the weights, in few characters."""
        ...


@dataclass(frozen=True)
class Scoring:
    """Which scores a table of clips gets. metrics: names in SCORES, each a column; ValueError for others, or none."""

    metrics: tuple[str, ...] = ("motion", "jitter", "blur", "hash")

    def __post_init__(self):
        unknown = [name for name in self.metrics if name not in SCORES]
        if unknown or not self.metrics:
            raise ValueError(f"metrics {', '.join(unknown) or '()'}: choose from {', '.join(SCORES)}")

    def chosen(self, kind: type) -> dict[str, OfAllFrames | OfSampled | Judged]:
        """The scores of a kind that are asked for, in the order of SCORES."""
        return {name: s for name, s in SCORES.items() if name in self.metrics and isinstance(s, kind)}

    def check(self) -> None:
        """UserError when a library that the metrics need is not there, before any clip is looked at."""
        for name in self.metrics:
            if SCORES[name].needs:
                need(*SCORES[name].needs)


def work(rows: Sequence[Row], pool: Pool, options: Scoring, judges: Mapping[str, Judge] | None = None) -> list[Row]:
    """Rows with a column for each metric, or with a `reason` where their clip does not decode.

    rows: with `path`. pool: where clips are decoded. options: which metrics. judges: the model of each `Judged` score
    among them, by its name; ValueError where they are not just those.
    """
    judges = judges or {}
    if judges.keys() != options.chosen(Judged).keys():
        raise ValueError(f"judges of {', '.join(judges) or 'nothing'} for the metrics {', '.join(options.metrics)}")
    scored = pool.each(partial(score, options=options), rows)
    return [_judged(row, judges) for row in scored] if judges else scored


def _judged(row: Row, judges: Mapping[str, Judge]) -> Row:
    if row.get("reason"):
        return row
    row = dict(row)
    frames_NHWC = np.stack([np.frombuffer(data, np.uint8).reshape(row["shown_size"]) for data in row.pop("shown")])
    del row["shown_size"]
    return {**row, **{name: float(np.mean(judge(frames_NHWC))) for name, judge in judges.items()}}


def score(row: Row, options: Scoring) -> list[Row]:
    """One row with its scores, and for judges with the frames they will see: `shown`, bytes, of `shown_size` each.

    row: with `path`. options: which metrics. UserError for a clip that cannot be decoded.
    """
    values = {}
    running = {name: s.begin() for name, s in options.chosen(OfAllFrames).items()}
    if running:
        for seconds, frame in frames.timed(row["path"]):
            for one in running.values():
                one.add(frame, seconds)
        values |= {name: one.value() for name, one in running.items()}
    of_sampled, judged = options.chosen(OfSampled), options.chosen(Judged)
    if of_sampled or judged:
        images = sample.uniform(row, SAMPLED)
        values |= {name: s.measure(images) for name, s in of_sampled.items()}
        if judged:
            shown = images[0], images[SAMPLED // 2], images[-1]
            values |= {"shown": [image.tobytes() for image in shown], "shown_size": images[0].shape}
    return [{**row, **values}]
