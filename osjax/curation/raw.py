"""The first step: measure raw videos and drop those that the report drops.

Source: Open-Sora 2.0 report, section 2 (broken, < 2 s, < 0.02 bits per pixel, < 16 fps, aspect outside [1/3, 3],
H.264 constrained baseline profile).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from osjax.curation.isolate import Pool
from osjax.curation.probe import looked_at
from osjax.curation.tables import Row
from osjax.data import opened, shown
from osjax.errors import UserError


@dataclass(frozen=True)
class Rules:
    """What a raw video must have. Seconds; bits per pixel of a frame; frames per second; height over width."""

    min_seconds: float = 2.0
    min_bits_per_pixel: float = 0.02
    min_fps: float = 16.0
    min_aspect: float = 1 / 3
    max_aspect: float = 3.0
    drop_profiles: tuple[str, ...] = ("Constrained Baseline",)
    drop_hdr: bool = False  # True: high dynamic range (PQ, HLG) is dropped; else it is shown in standard range

    def __post_init__(self):
        for name in ("min_seconds", "min_bits_per_pixel", "min_fps", "min_aspect"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name} is {getattr(self, name)}: give 0 or more")
        if not self.max_aspect > self.min_aspect:
            raise UserError(f"max_aspect {self.max_aspect} must be above min_aspect {self.min_aspect}")


def work(rows: Sequence[Row], pool: Pool, rules: Rules) -> list[Row]:
    """Rows with what `inspect` measures, those that break one of `rules` with a `reason`.

    rows: with `path`. pool: where they are looked at.
    """
    return pool.each(partial(_look, rules=rules), rows)


def _look(row: Row, rules: Rules) -> list[Row]:
    measured = {**row, **inspect(Path(row["path"]))}
    return [{**measured, "reason": reason(measured, rules)}]


def inspect(path: Path) -> Row:
    """What `measure` gives, and duration (s), codec, profile, pixel_format, rotation (degrees) and bits_per_pixel.

    path: of the video. A frame near the end is decoded, too: a file that was cut off in a download is broken. UserError
    for broken files.
    """
    measured, length = looked_at(path)
    if length is None:
        raise UserError(f"{path} is a picture")
    if not length.whole:
        raise UserError(f"{path} is cut off before its end")
    with opened.video(path) as (container, stream):
        first = next(container.decode(stream))
        fps = measured["fps"]
        seconds = float(stream.duration * stream.time_base) if stream.duration else (container.duration or 0) / 1e6
        duration = seconds or (measured["num_frames"] / fps if fps else 0.0)
        bits = 8 * path.stat().st_size if not stream.bit_rate else stream.bit_rate * duration
        stated = {
            "duration": duration,
            "codec": stream.codec_context.name,
            "profile": str(stream.codec_context.profile or ""),
            "pixel_format": first.format.name,
            "rotation": int(first.rotation),
            "orientation": shown.exif(first),
            "pixel_aspect": float(stream.sample_aspect_ratio or 1),
            "transfer": shown.transfer_name(first),
            "range": shown.range_name(first),
        }
    pixels = measured["num_frames"] * measured["resolution"]
    return {**measured, **stated, "bits_per_pixel": bits / pixels}


def reason(row: Row, rules: Rules) -> str | None:
    """Why a measured row is dropped by `rules`, None when it is kept."""
    if row["duration"] < rules.min_seconds:
        return f"{row['duration']:.2f} s long, needs {rules.min_seconds:g}"
    if row["fps"] < rules.min_fps:
        return f"{row['fps']:.2f} frames per second, needs {rules.min_fps:g}"
    if not rules.min_aspect <= row["aspect_ratio"] <= rules.max_aspect:
        return f"aspect ratio {row['aspect_ratio']:.3f}, outside of {rules.min_aspect:.3f} to {rules.max_aspect:.3f}"
    if row["bits_per_pixel"] < rules.min_bits_per_pixel:
        return f"{row['bits_per_pixel']:.4f} bits per pixel, needs {rules.min_bits_per_pixel:g}"
    if row["profile"] in rules.drop_profiles:
        return f"profile {row['profile']}"
    if rules.drop_hdr and row["transfer"] in shown.HDR.values():
        return f"HDR ({row['transfer']})"
    return None
