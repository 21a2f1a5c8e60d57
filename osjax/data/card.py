"""The card of a data set: what is in it, for those who find it later."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from osjax import atomic
from osjax.types import Row

FILE = "README.md"


def write(folder: Path, rows: Iterable[Row], identity: str) -> None:
    """Write the card of a data set into its `folder`: README.md.

    rows: of its clips (text, num_frames, height, width, fps). identity: of its contents (`dataset.Records.identity`).
    """
    clips, frames, hours, words = 0, 0, 0.0, 0
    sizes, rates = Counter(), Counter()
    for row in rows:
        fps = float(row["fps"])
        clips, frames, words = clips + 1, frames + int(row["num_frames"]), words + len(str(row["text"]).split())
        hours += 0.0 if np.isnan(fps) or not fps else int(row["num_frames"]) / fps / 3600
        sizes[f"{row['width']}x{row['height']}"] += 1
        rates["image" if np.isnan(fps) else f"{fps:.4g}"] += 1
    lines = [
        "# Captioned clips",
        "",
        f"- {clips} clips, {frames} frames, {hours:.2f} hours; {words / max(1, clips):.1f} words a caption",
        f"- identity {identity}, from the fingerprints of all shards (fingerprints.json)",
        "- records: the file as it was found, its caption, path, frames, height, width and frame rate (features.json)",
        f"- sizes: {_most(sizes)}",
        f"- frames per second: {_most(rates)}",
        "",
        "Made by `osjax data build`. Who made the videos, and on what terms they may be used, belongs here.",
    ]
    atomic.write_text(folder / FILE, "\n".join(lines) + "\n")


def _most(counts: Counter) -> str:
    shown = ", ".join(f"{name} ({number})" for name, number in counts.most_common(8))
    return shown + (f" and {len(counts) - 8} more" if len(counts) > 8 else "")
