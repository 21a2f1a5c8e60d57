"""The demo's report: contact sheet, loss and throughput plots, report.json to read and report.html to look at."""

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw

matplotlib.use("Agg")  # no display on a training host
import matplotlib.pyplot as plt  # noqa: E402

from osjax import atomic

MARGIN, LABEL = 4, 14  # pixels around a frame and for the caption above a row


def contact_sheet(path: Path, videos: Sequence[np.ndarray], captions: Sequence[str], columns: int = 2) -> None:
    """One row of frames a video, captions above, `columns` videos side by side. videos: uint8 (T, H, W, 3) each."""
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
    sheet.save(path)


def plots(path: Path, histories: Mapping[str, Sequence[Mapping]]) -> None:
    """Loss (smoothed) and steps per second of every stage. histories: stage -> lines of its metrics.jsonl."""
    figure, axes = plt.subplots(2, len(histories), figsize=(4 * len(histories), 5.5), squeeze=False)
    for column, (name, lines) in enumerate(histories.items()):
        steps, loss = [line["step"] for line in lines], np.array([line["loss"] for line in lines])
        width = max(1, len(loss) // 50)
        smooth = np.convolve(loss, np.ones(width) / width, "valid")
        axes[0, column].plot(steps, loss, alpha=0.25)
        axes[0, column].plot(steps[len(steps) - len(smooth) :], smooth, color="C0")
        axes[0, column].set(title=name, yscale="log", xlabel="step", ylabel="loss")
        rate = [(line["step"], line["steps_per_s"]) for line in lines if line.get("steps_per_s")]
        axes[1, column].plot(*zip(*rate, strict=True)) if rate else None
        axes[1, column].set(xlabel="step", ylabel="steps / s", ylim=(0, None))
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)


def write_json(path: Path, report: Mapping) -> None:
    atomic.write_text(path, json.dumps(report, indent=2) + "\n")


def write_html(path: Path, report: Mapping, pictures: Mapping[str, str], videos: Sequence[tuple[str, str]]) -> None:
    """One page: the figures of report.json, the pictures (title -> file) and the videos ((caption, file))."""
    match = report["prompt_match"]
    figures = [
        ("Colour of held-out prompts", f"{match['colour']:.1%}"),
        ("Direction", f"{match['direction']:.1%}"),
        ("Shape", f"{match['shape']:.1%}"),
        ("Held-out samples", str(match["samples"])),
        ("Autoencoder PSNR, held-out clips", f"{report['ae_psnr_db']:.2f} dB"),
        ("First frame of image-to-video", f"{report['i2v_first_frame_psnr_db']:.2f} dB"),
        ("Time in all", f"{report['seconds'] / 60:.1f} min"),
        ("Peak memory", f"{report['peak_rss_gb']:.2f} GB"),
    ]
    stages = [(s["name"], s["steps"], f"{s['final_loss']:.4f}", f"{s['seconds']:.0f} s") for s in report["stages"]]
    body = "<h1>osjax demo</h1>" + table(("", ""), figures) + "<h2>Stages</h2>"
    body += table(("stage", "steps", "final loss", "time"), stages)
    for title, file in pictures.items():
        body += f'<h2>{html.escape(title)}</h2><img src="{html.escape(file)}" alt="{html.escape(title)}">'
    body += "<h2>Samples</h2>" + "".join(figure(caption, file) for caption, file in videos)
    write_page(path, "osjax demo", body)


def write_page(path: Path, title: str, body: str) -> None:
    """One HTML page that needs no other file but those it names."""
    style = "body{font:15px sans-serif;margin:2em;max-width:75em}td,th{padding:.2em 1em;text-align:left}"
    style += "img{max-width:100%}figure{display:inline-block;margin:.4em;width:192px;vertical-align:top}"
    head = f'<!doctype html><meta charset="utf-8"><title>{html.escape(title)}</title><style>{style}</style>'
    atomic.write_text(path, head + body)


def figure(caption: str, file: str) -> str:
    """A video with its caption."""
    player = f'<video src="{html.escape(file)}" width="192" loop autoplay muted></video>'
    return f"<figure>{player}<figcaption>{html.escape(caption)}</figcaption></figure>"


def table(head: Sequence[str], rows: Sequence[Sequence]) -> str:
    def row(cells, tag):
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(c))}</{tag}>" for c in cells) + "</tr>"

    return "<table>" + row(head, "th") + "".join(row(r, "td") for r in rows) + "</table>"
