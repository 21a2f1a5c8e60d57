"""A page to look at: histograms of every number in a table, reasons of what was dropped, example frames."""

import base64
import html
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np

from osjax import atomic
from osjax.curation import tables
from osjax.curation.filter import Count
from osjax.curation.isolate import Pool
from osjax.curation.tables import Row
from osjax.errors import UserError

WIDTH = 240  # pixels of an example frame
STYLE = "body{font:15px sans-serif;margin:2em}figure{display:inline-block;width:250px;vertical-align:top;margin:6px}"


def run(
    source: Path | str,
    out: Path | str,
    pool: Pool,
    examples: int = 24,
    root: Path | str | None = None,
    pyramid: Sequence[Count] = (),
    seed: int = 0,
) -> int:
    """Write the page of the table `source` to `out`, one .html file that needs no other. Returns the number of clips.

    pool: where frames are decoded. root: the folder that clips must lie in. pyramid: what every stage kept and dropped;
    without it the table of the dropped beside `source`, when there is one, is counted by stage. `examples` clips,
    evenly drawn by `seed`, show their middle frame. UserError for another suffix.
    """
    out = Path(out)
    if out.suffix != ".html":
        raise UserError(f"{out} is not a .html file: name the page to write, such as stats.html", status=2)
    numbers, drawn, count = _read(tables.rows(source, root), examples, np.random.default_rng(seed))
    dropped = Path(source).with_suffix(f".dropped{Path(source).suffix}")
    reasons = Counter(row.get("stage") or "-" for row in tables.rows(dropped, "/")) if dropped.exists() else Counter()
    shown = pool.each(example, drawn)
    parts = [f"<h1>{html.escape(Path(source).name)}: {count} clips</h1>"]
    parts += [_pyramid(pyramid) if pyramid else _list(reasons), _histograms(numbers)]
    parts += [_figure(row) for row in shown]
    head = f"<!doctype html><meta charset=utf-8><title>clips</title><style>{STYLE}</style>"
    atomic.write_text(out, head + "\n".join(parts))
    return count


def _read(rows, examples: int, rng: np.random.Generator) -> tuple[dict[str, list[float]], list[Row], int]:
    """Numbers by column, a uniform sample of rows (reservoir), and how many rows there were."""
    numbers, drawn, count = {}, [], 0
    for count, row in enumerate(rows, 1):
        for name, value in row.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value):
                numbers.setdefault(name, []).append(float(value))
        numbers.setdefault("words of the caption", []).append(len(str(row.get("text") or "").split()))
        at = len(drawn) if len(drawn) < examples else int(rng.integers(count))
        drawn[at : at + 1] = [row] if at < examples else drawn[at : at + 1]
    return numbers, drawn, count


def example(row: Row) -> list[Row]:
    """The row with its middle frame as JPEG bytes, `jpeg`."""
    path = row["path"]
    try:
        with av.open(path) as container:
            stream = container.streams.video[0]
            if stream.duration:
                container.seek((stream.start_time or 0) + stream.duration // 2, stream=stream)
            frame = next(container.decode(stream), None)
    except (av.FFmpegError, OSError, IndexError) as error:
        raise UserError(f"{path} cannot be decoded ({error})") from error
    if frame is None:
        raise UserError(f"{path} holds no frame")
    file = io.BytesIO()
    scale = WIDTH / frame.width
    frame.reformat(WIDTH, max(2, round(frame.height * scale))).to_image().save(file, "JPEG", quality=80)
    return [{**row, "jpeg": file.getvalue()}]


def _pyramid(counts: Sequence[Count]) -> str:
    widest = max(count.kept + count.dropped for count in counts) or 1
    rows = "".join(
        f"<tr><td>{html.escape(c.stage)}<td align=right>{c.kept}<td align=right>{c.dropped}"
        f"<td><div style='background:#48c;height:1em;width:{400 * c.kept / widest:.0f}px'></div>"
        for c in counts
    )
    return f"<table><tr><th>stage<th>kept<th>dropped<th>{rows}</table>"


def _list(reasons: Counter) -> str:
    lines = "".join(f"<li>{html.escape(stage)}: {number} dropped</li>" for stage, number in reasons.most_common())
    return f"<ul>{lines}</ul>"


def _histograms(numbers: dict[str, Sequence[float]]) -> str:
    from matplotlib.figure import Figure

    columns = 4
    lines = -(-len(numbers) // columns)
    figure = Figure(figsize=(4 * columns, 2.6 * lines), layout="constrained")
    for place, (name, values) in enumerate(sorted(numbers.items()), 1):
        axes = figure.add_subplot(lines, columns, place)
        axes.hist(values, bins=40)
        axes.set_title(f"{name}  (median {np.median(values):.4g})", fontsize=9)
        axes.tick_params(labelsize=7)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=80)
    return f'<img src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'


def _figure(row: Row) -> str:
    words = html.escape(str(row.get("reason") or row.get("text") or ""))
    picture = ""
    if row.get("jpeg"):
        picture = f'<img src="data:image/jpeg;base64,{base64.b64encode(row["jpeg"]).decode()}"><br>'
    return f"<figure>{picture}<b>{html.escape(Path(row['path']).name)}</b><br>{words}</figure>"
