"""A table of clips as a page: histograms of every number, counts of what was dropped, example frames."""

import base64
import html
import io
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from osjax.errors import UserError
from osjax.pages import page

COLUMNS = 4  # histograms beside each other
MOST = 40  # histograms of a page
WIDEST = 40  # characters of a column's name
LARGEST = 1e100  # numbers beyond are shown there: the differences of doubles beyond have no double
BINS = 40


def check(out: Path) -> None:
    """UserError for a path that cannot be the page."""
    if out.suffix != ".html":
        raise UserError(f"{out} is not a .html file: name the page to write, such as stats.html", status=2)


def write(
    out: Path,
    title: str,
    numbers: Mapping[str, Sequence[float]],
    shown: Sequence[Mapping[str, Any]],
    reasons: Counter,
    pyramid: Sequence[tuple[str, int, int]] = (),
) -> None:
    """Write the page, one file that needs no other.

    out: its path. title: of the page. numbers: values of every column. shown: rows with `path`, `text` or `reason`, and
    `jpeg` bytes. reasons: clips dropped by stage, told where there is no pyramid. pyramid: (stage, kept, dropped) in
    order.
    """
    body = page.heading(title, 1)
    if pyramid:
        body += _pyramid(pyramid)
    else:
        body += page.table(("stage", "dropped"), reasons.most_common())
    body += _histograms(numbers) + "".join(map(_figure, shown))
    page.write(out, title, body)


def _pyramid(counts: Sequence[tuple[str, int, int]]) -> str:
    widest = max(kept + dropped for _, kept, dropped in counts) or 1
    rows = [(stage, kept, dropped, "\N{FULL BLOCK}" * round(40 * kept / widest)) for stage, kept, dropped in counts]
    return page.table(("stage", "kept", "dropped", ""), rows)


def _histograms(numbers: Mapping[str, Sequence[float]]) -> str:
    chosen = sorted(numbers.items())[:MOST]
    if not chosen:
        return ""
    lines = -(-len(chosen) // COLUMNS)
    figure = Figure(figsize=(4 * COLUMNS, 2.6 * lines))  # laid out by hand: to search for a layout takes seconds
    inch = 1 / (2.6 * lines)
    figure.subplots_adjust(0.03, 0.3 * inch, 0.99, 1 - 0.3 * inch, wspace=0.2, hspace=0.35)
    for place, (name, values) in enumerate(chosen, 1):
        axes = figure.add_subplot(lines, COLUMNS, place)
        counts, edges = histogram(values)
        axes.stairs(counts, edges, fill=True)
        label = "".join(c if c.isprintable() else " " for c in name)[:WIDEST]
        axes.set_title(f"{label}  (median {np.median(values):.4g})", fontsize=9, parse_math=False)
        axes.tick_params(labelsize=7)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the font's: a box stands in its place
        figure.savefig(file, format="png", dpi=80)
    shown = page.picture(_data_url("image/png", file.getvalue()), "histograms of every column")
    left = len(numbers) - len(chosen)
    return shown + (page.paragraph(f"{left} more columns of numbers are not shown") if left else "")


def histogram(values: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """(counts of BINS bins, their BINS + 1 edges) of finite numbers, however close together or far apart they lie.

    values: at least one.
    """
    clipped = np.clip(np.asarray(values, np.float64), -LARGEST, LARGEST)
    low, high = float(clipped.min()), float(clipped.max())
    # Bins of numbers that differ in their last bits alone would have no width of their own.
    if high - low < 1e-9 * max(abs(low), abs(high)) or high == low:
        half = max(0.5, 1e-6 * max(abs(low), abs(high)))
        low, high = low - half, high + half
    elif high - low < 1e-300:
        low, high = low - 0.5, high + 0.5
    return np.histogram(clipped, bins=BINS, range=(low, high))


def _figure(row: Mapping[str, Any]) -> str:
    name, words = Path(row["path"]).name, str(row.get("reason") or row.get("text") or "")
    shown = page.picture(_data_url("image/jpeg", row["jpeg"]), name) if row.get("jpeg") else ""
    caption = f"<figcaption><b>{html.escape(name)}</b><br>{html.escape(words)}</figcaption>"
    return f'<figure style="width:250px">{shown}{caption}</figure>'


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
