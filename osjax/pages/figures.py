"""Pictures for pages: contact sheets of videos, curves of a training run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from osjax import atomic

MARGIN, LABEL = 4, 14  # pixels around a frame and for the caption above a row


def contact_sheet(path: Path, videos: Sequence[np.ndarray], captions: Sequence[str], columns: int = 2) -> None:
    """Write a picture with a row of frames a video, its caption above.

    path: of the picture; its suffix says the format. captions: one a video, cut to the width of its row. videos: uint8
    (T, H, W, 3) each. columns: videos side by side.
    """
    frames, height, width, _ = videos[0].shape
    cell_w, cell_h = frames * (width + MARGIN) + 3 * MARGIN, height + LABEL + 2 * MARGIN
    rows = -(-len(videos) // columns)
    sheet = Image.new("RGB", (columns * cell_w, rows * cell_h), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (video, caption) in enumerate(zip(videos, captions, strict=True)):
        left, top = (i % columns) * cell_w + MARGIN, (i // columns) * cell_h + MARGIN
        draw.text((left, top), caption[: cell_w // 6], fill="black")
        for t, frame in enumerate(video):
            sheet.paste(Image.fromarray(frame), (left + t * (width + MARGIN), top + LABEL))
    with atomic.complete(path) as partial:
        sheet.save(partial, format=_format(path))


def plots(path: Path, histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Write a picture of every stage's loss (smoothed) and steps per second.

    histories: stage -> lines of its metrics.jsonl.
    """
    figure = Figure(figsize=(4 * len(histories), 5.5), layout="tight")
    axes = figure.subplots(2, len(histories), squeeze=False)
    for column, (name, lines) in enumerate(histories.items()):
        steps, loss = [line["step"] for line in lines], np.array([_number(line.get("loss")) for line in lines])
        width = max(1, len(loss) // 50)
        smooth = np.convolve(loss, np.ones(width) / width, "valid")
        axes[0, column].plot(steps, loss, alpha=0.25)
        axes[0, column].plot(steps[len(steps) - len(smooth) :], smooth, color="C0")
        axes[0, column].set(title=_plain(name), yscale="log", xlabel="step", ylabel="loss")
        rate = [(line["step"], line["steps_per_s"]) for line in lines if _number(line.get("steps_per_s")) > 0]
        axes[1, column].plot(*zip(*rate, strict=True)) if rate else None
        axes[1, column].set(xlabel="step", ylabel="steps / s", ylim=(0, None))
    with atomic.complete(path) as partial:
        figure.savefig(partial, dpi=90, format=_format(path).lower())


def curves(path: Path, histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Write a picture of the losses of stages that follow each other: a colour a stage, raw and smoothed.

    path: of the picture; `.svg` scales. histories: stage -> lines of its metrics.jsonl.
    """
    figure = Figure(figsize=(9, 4), layout="tight")
    axes, begin = figure.subplots(), 0
    for number, (name, lines) in enumerate(histories.items()):
        steps, loss = begin + np.arange(len(lines)), np.array([line["loss"] for line in lines])
        width = max(1, len(loss) // 25)
        smooth = np.convolve(loss, np.ones(width) / width, "valid")
        axes.plot(steps, loss, color=f"C{number}", alpha=0.2, linewidth=0.6)
        axes.plot(steps[len(steps) - len(smooth) :], smooth, color=f"C{number}", label=_plain(name))
        begin += len(lines)
    axes.set(yscale="log", xlabel="step, stage after stage", ylabel="loss")
    axes.legend(frameon=False)
    with atomic.complete(path) as partial:
        figure.savefig(partial, format=_format(path).lower())


def _format(path: Path) -> str:
    """What Pillow and matplotlib call the format of a file by its suffix: the unfinished one has another."""
    return {".jpg": "JPEG", ".jpeg": "JPEG"}.get(path.suffix.lower(), path.suffix.removeprefix(".").upper())


def _plain(text: str) -> str:
    """A text as matplotlib draws it to the letter, and no formula of it."""
    return text.replace("$", r"\$")


def _number(value: Any) -> float:
    """A value of a line of metrics, NaN where it is none."""
    return float(value) if isinstance(value, int | float) else float("nan")
