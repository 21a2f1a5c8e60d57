"""A reconstruction report: a JSON to read, a page to look at, side-by-side videos and maps of the error."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image

from osjax import atomic
from osjax.data import video
from osjax.pages import page

# Open-Sora 2.0 report, Table 1: the released 128-channel Video DC-AE at 256 pixels, on a set that it does not name.
REPORTED = {"lpips": 0.051, "psnr": 30.538, "ssim": 0.863}
MEASURES = {  # name: (heading, unit, digits)
    "psnr": ("PSNR", " dB", 3),
    "ssim": ("SSIM", "", 4),
    "lpips": ("LPIPS", "", 4),
    "flicker": ("Flicker", " levels", 3),
}
BRIGHTEST = 32.0  # grey levels of error that are the brightest colour of a map


def heat(error_THW: np.ndarray) -> np.ndarray:
    """Colours of errors, uint8 (..., H, W, 3): black is none, bright BRIGHTEST or more.

    error_THW: grey levels (..., H, W).
    """
    colours = matplotlib.colormaps["inferno"](np.clip(error_THW / BRIGHTEST, 0, 1))[..., :3]
    return np.round(colours * 255).astype(np.uint8)


def write_clip(folder: Path, stem: str, want: np.ndarray, got: np.ndarray, error: np.ndarray, fps: float) -> None:
    """STEM.mp4 (original, reconstruction and error side by side) and STEM.png (error, the mean over frames).

    They are written to `folder`, stem: the beginning of both names. want, got: uint8 (T, H, W, 3). error: grey levels
    (T, H, W). fps: frames a second.
    """
    panels = np.concatenate([want, got, heat(error)], axis=2)
    _, H, W, _ = panels.shape
    even = np.pad(panels, ((0, 0), (0, H % 2), (0, W % 2), (0, 0)), mode="edge")
    video.write_mp4(folder / f"{stem}.mp4", even, fps)
    Image.fromarray(heat(error.mean(0))).save(folder / f"{stem}.png")


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Mean of every measure over videos. rows: measures of one video each by name, those of the first in all."""
    measured = [name for name in MEASURES if rows and rows[0].get(name) is not None]
    return {name: float(np.mean([row[name] for row in rows])) for name in measured}


def lines(report: Mapping[str, Any]) -> list[str]:
    """What the command prints: this result, the report's, and what tiling costs."""
    shown = [f"{len(report['videos'])} videos: {_figures(report['mean'])}"]
    shown.append(f"report, Video DC-AE 4x32x32 at 256 pixels: {_figures(REPORTED)}")
    latents = report["latents"]
    implied = ", ".join(f"{name} {value:.5g}" for name, value in latents["implied"].items())
    shown.append(f"latents: mean {latents['mean']:.4f}, std {latents['std']:.4f}; to be normal they need {implied}")
    if report.get("seams"):
        shown.append("tiled beside whole: " + ", ".join(f"{k} {_level(v)}" for k, v in report["seams"].items()))
    return shown


def _level(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _figures(mean: Mapping[str, float]) -> str:
    return ", ".join(
        f"{heading} {mean[name]:.{digits}f}{unit}" for name, (heading, unit, digits) in MEASURES.items() if name in mean
    )


def write(folder: Path, report: Mapping[str, Any], shown: Sequence[str]) -> None:
    """Write recon.json and recon.html into a folder.

    report: model, videos (rows), mean, latents, seams. shown: stems of the videos that have pictures there.
    """
    atomic.write_text(folder / "recon.json", json.dumps(report, indent=2) + "\n")
    page.write(folder / "recon.html", "osjax eval recon", _body(report, shown))


def _body(report: Mapping[str, Any], shown: Sequence[str]) -> str:
    measured = {name: MEASURES[name] for name in report["mean"]}
    head = ["", *(f"{heading}{f' ({unit.strip()})' if unit else ''}" for heading, unit, _ in measured.values())]
    rows = [["all, mean", *_cells(report["mean"], measured)], ["the report's table", *_cells(REPORTED, measured)]]
    rows += [[row["name"], *_cells(row, measured)] for row in report["videos"]]
    body = page.heading(f"Reconstruction: {report['model']}", 1) + page.table(head, rows)
    if report.get("seams"):
        body += page.heading("Tiled beside whole, grey levels")
        body += page.table(["", *report["seams"]], [["difference", *map(_level, report["seams"].values())]])
    latents = report["latents"]
    body += page.heading("Latents")
    body += page.table(["", "mean", "std"], [["all", f"{latents['mean']:.4f}", f"{latents['std']:.4f}"]])
    implied = ", ".join(f"{name} = {value:.5g}" for name, value in latents["implied"].items())
    words = f"Dead channels: {latents['dead_channels']}. To have zero mean and unit variance they need {implied}."
    body += page.paragraph(words)
    body += page.heading(f"Original, reconstruction, error (brightest: {BRIGHTEST:.0f} grey levels)")
    for stem in shown:
        body += page.video(f"{stem}.mp4", stem, width=None) + page.picture(f"{stem}.png", "mean error")
    return body


def _cells(values: Mapping[str, Any], measured: Mapping[str, tuple]) -> list[str]:
    return [f"{values[name]:.{digits}f}" if name in values else "" for name, (*_, digits) in measured.items()]
