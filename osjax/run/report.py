"""`osjax report DIR`: the run in a workdir as one HTML page, while it trains or afterwards."""

import html
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from osjax.errors import UserError
from osjax.run import demo_report
from osjax.training import metrics

RECENT = 50  # steps that "at first" and "now" are the means of, or a quarter of a short run
NEWEST = 24  # samples on the page


def add_options(parser) -> None:
    parser.add_argument("workdir", help="folder of a run, with metrics.jsonl")


def run(cfg, args) -> None:
    workdir = Path(args.workdir)
    by_stage: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in metrics.read(workdir / "metrics.jsonl"):
        by_stage[line["stage"]].append(line)
    if not by_stage:
        raise UserError(f"{workdir} holds no metrics.jsonl with lines: give the workdir of a run")
    path = write(workdir, by_stage)
    print(f"see {path}")


def write(workdir: Path, by_stage: dict[str, list[dict[str, Any]]]) -> Path:
    """run.html, and the pictures it shows, in the workdir."""
    demo_report.plots(workdir / "run.png", by_stage)
    body = f"<h1>{html.escape(str(workdir))}</h1>"
    head = ("stage", "steps", "loss at first", "loss now", "steps / s", "data wait", "updates skipped", "evaluation")
    body += demo_report.table(head, [_row(name, lines) for name, lines in by_stage.items()])
    body += '<img src="run.png" alt="losses and rates">'
    videos = sorted((workdir / "samples").rglob("*.mp4"), key=lambda p: p.stat().st_mtime)[-NEWEST:]
    if videos:
        body += "<h2>Samples</h2>"
        body += "".join(demo_report.figure(f"{p.parent.name}: {p.stem}", str(p.relative_to(workdir))) for p in videos)
    demo_report.write_page(workdir / "run.html", str(workdir), body)
    return workdir / "run.html"


def _row(name: str, lines: list[dict[str, Any]]) -> tuple:
    def mean(key: str, rows: list[dict[str, Any]]) -> float:
        found = [row[key] for row in rows if row.get(key) is not None]
        return float(np.mean(found)) if found else float("nan")

    count = max(1, min(RECENT, len(lines) // 4))
    recent = lines[-count:]
    rates = [row["steps_per_s"] for row in recent if row.get("steps_per_s")]
    rate = float(np.median(rates)) if rates else float("nan")
    waited = mean("data_wait_s", recent) * rate
    evaluated = [row["eval_loss"] for row in lines if row.get("eval_loss") is not None]
    return (
        name,
        len(lines),
        f"{mean('loss', lines[:count]):.4f}",
        f"{mean('loss', recent):.4f}",
        f"{rate:.2f}",
        f"{waited:.1%}",
        int(max(row.get("skipped") or 0 for row in lines)),
        " to ".join(f"{x:.4f}" for x in (evaluated[0], evaluated[-1])) if evaluated else "none",
    )
