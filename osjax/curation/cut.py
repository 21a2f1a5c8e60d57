"""Raw videos to clips of one shot each: scene cuts, black borders, size, frame rate, H.264. One pass, constant memory.

Source: Open-Sora 2.0 report, section 2 (scene scores of libavfilter; shots > 8 s split, < 2 s dropped; borders cropped;
long side <= 1080; < 30 fps).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import av

from osjax.curation import borders, frames
from osjax.curation.encode import ClipWriter, Format
from osjax.curation.isolate import Pool
from osjax.curation.tables import Row
from osjax.data import opened
from osjax.errors import UserError

DETECT = 160  # pixels of the long side at which cuts are looked for


PRESETS = "ultrafast superfast veryfast faster fast medium slow slower veryslow placebo".split()  # of x264


@dataclass(frozen=True)
class Cutting:
    """How videos are cut.

    scene: score of libavfilter's scdet, 0 to 100, from which a frame begins a shot. Hard cuts only: a slow fade stays
    in its clip. min_seconds, max_seconds: of a clip. max_side: pixels. max_fps: exclusive; faster sources get `fps`.
    crf, preset: of x264. key_seconds: between key frames, at which a loader can begin to decode.
    """

    scene: float = 10.0
    min_seconds: float = 2.0
    max_seconds: float = 8.0
    max_side: int = 1080
    max_fps: float = 30.0
    fps: float = 24.0
    crf: int = 18
    preset: str = "veryfast"
    key_seconds: float = 2.0
    borders: bool = True

    def __post_init__(self):
        for name in ("max_side", "max_fps", "fps", "max_seconds", "key_seconds"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} is {getattr(self, name)}: give more than 0")
        if not (0 <= self.min_seconds <= self.max_seconds and 0 <= self.scene <= 100 and 0 <= self.crf <= 51):
            raise UserError(
                f"min_seconds {self.min_seconds} must be from 0 to max_seconds, scene {self.scene} from 0 to 100, crf "
                f"{self.crf} from 0 to 51"
            )
        if self.preset not in PRESETS:
            raise UserError(f"preset {self.preset!r} is unknown to x264: use one of {', '.join(PRESETS)}")


def work(rows: Sequence[Row], pool: Pool, options: Cutting, folder: str) -> list[Row]:
    """A row for every clip, written below `folder`; shots that are too short have a `reason` and no file.

    rows: of videos, with `path`. pool: where they are cut. options: how.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    return pool.each(partial(cut, options=options, folder=folder), rows)


def cut(row: Row, options: Cutting, folder: str) -> list[Row]:
    """Cut one video. Clips are named by the source's path and their number, so a repeated run writes the same files.

    row: with `path`. options: how. folder: where clips are written, which is there. UserError for a video that cannot
    be decoded to its end; nothing of it is left then.
    """
    source = Path(row["path"])
    stem = f"{source.stem[:64]}-{hashlib.sha256(str(source).encode()).hexdigest()[:12]}"
    clips: list[ClipWriter] = []
    try:
        for begins, seconds, frame in _pieces(source, options):
            if begins:
                if clips:
                    clips[-1].end(seconds)
                if not clips:
                    form = _format(source, frame, options)
                clips.append(ClipWriter(Path(folder) / f"{stem}-{len(clips):05d}.mp4", form, frame, seconds))
            clips[-1].add(frame, seconds)
        if not clips:
            raise UserError(f"{source} holds no frame")
        clips[-1].end(seconds + 1 / form.source_fps)
        return [_row(row, clip, options) for clip in clips]
    finally:
        for clip in clips:
            clip.discard()  # what was not kept


def _pieces(source: Path, options: Cutting):
    """(whether a clip begins here, seconds, frame) for every frame."""
    detector, start = None, 0.0
    for seconds, frame in frames.timed(source):
        if detector is None:
            scale = DETECT / max(frame.width, frame.height, DETECT)
            size = f"{max(16, round(frame.width * scale))}:{max(16, round(frame.height * scale))}"
            detector = frames.graph(frame, [("scale", f"{size}:flags=fast_bilinear"), ("scdet", "t=100")])
            begins = True
        else:
            begins = seconds - start >= options.max_seconds
        scores = [float(f.metadata.get("lavfi.scd.score", 0)) for f in frames.push(detector, frame, seconds)]
        begins = begins or max(scores, default=0.0) >= options.scene
        start = seconds if begins else start
        yield begins, seconds, frame


def _format(source: Path, frame: av.VideoFrame, options: Cutting) -> Format:
    with opened.video(source) as (_, stream):
        fps = frames.rate(stream)
    box = borders.find(source) if options.borders else None
    return Format(
        box=box or borders.Box(0, 0, frame.height, frame.width),
        max_side=options.max_side,
        source_fps=fps,
        fps=fps if fps < options.max_fps else options.fps,
        crf=options.crf,
        preset=options.preset,
        key_seconds=options.key_seconds,
    )


def _row(row: Row, clip: ClipWriter, options: Cutting) -> Row:
    seconds = clip.seconds
    measured = {"source": row["path"], "start": clip.start, "duration": seconds}
    if seconds < options.min_seconds - 0.5 / clip.form.fps:  # up to the rounding to whole frames
        reason = f"shot from {clip.start:.2f} s is {seconds:.2f} s long, needs {options.min_seconds:g}"
        return {**row, **measured, "reason": reason}
    clip.keep()
    return {
        **row,
        **measured,
        "path": str(clip.path),
        "num_frames": clip.count,
        "height": clip.height,
        "width": clip.width,
        "aspect_ratio": clip.height / clip.width,
        "resolution": clip.height * clip.width,
        "fps": clip.form.fps,
    }
