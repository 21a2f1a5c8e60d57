"""The demo's report as a page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from osjax.pages import page


def write(
    path: Path, report: Mapping[str, Any], pictures: Mapping[str, str], videos: Sequence[tuple[str, str]]
) -> None:
    """Write one page: the figures of report.json, pictures and videos.

    path: of the page, in the folder that files are relative to. report: what report.json holds. pictures: title ->
    file. videos: (caption, file).
    """
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
    body = page.heading("osjax demo", 1) + page.table(("", ""), figures) + page.heading("Stages")
    body += page.table(("stage", "steps", "final loss", "time"), stages)
    for title, file in pictures.items():
        body += page.heading(title) + page.picture(file, title)
    body += page.heading("Samples") + "".join(page.video(file, caption) for caption, file in videos)
    page.write(path, "osjax demo", body)
