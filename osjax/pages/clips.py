"""A table of clips as a page: histograms of every number, counts of what was dropped, example frames."""

import base64
import html
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from osjax.errors import UserError
from osjax.pages import page

COLUMNS = 4  # histograms beside each other


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
    lines = -(-len(numbers) // COLUMNS)
    figure = Figure(figsize=(4 * COLUMNS, 2.6 * lines), layout="constrained")
    for place, (name, values) in enumerate(sorted(numbers.items()), 1):
        axes = figure.add_subplot(lines, COLUMNS, place)
        axes.hist(values, bins=40)
        axes.set_title(f"{name}  (median {np.median(values):.4g})", fontsize=9, parse_math=False)
        axes.tick_params(labelsize=7)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=80)
    return page.picture(_data_url("image/png", file.getvalue()), "histograms of every column")


def _figure(row: Mapping[str, Any]) -> str:
    name, words = Path(row["path"]).name, str(row.get("reason") or row.get("text") or "")
    shown = page.picture(_data_url("image/jpeg", row["jpeg"]), name) if row.get("jpeg") else ""
    caption = f"<figcaption><b>{html.escape(name)}</b><br>{html.escape(words)}</figcaption>"
    return f'<figure style="width:250px">{shown}{caption}</figure>'


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
