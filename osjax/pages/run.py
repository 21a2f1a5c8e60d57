"""A training run as a page: its losses, rates and newest samples."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from osjax.pages import figures, page

RECENT = 50  # steps that "at first" and "now" are the means of, or a quarter of a short run
NEWEST = 24  # samples on the page
CLIPS = "clips.txt"  # in the folder of a stage: which clips it trains on, as a table
HEAD = ("stage", "steps", "loss at first", "loss now", "steps / s", "data wait", "updates skipped", "evaluation")

SPENT = ("cause", "seconds", "share", "what it is")


def write(
    workdir: Path,
    by_stage: Mapping[str, Sequence[Mapping[str, Any]]],
    spent: Sequence[tuple[str, float, float, str]] = (),
) -> Path:
    """Write run.html, and the pictures it shows, into a run's workdir; its path.

    by_stage: lines of metrics.jsonl by stage. spent: (cause, seconds, share, words) of the run's wall time.
    """
    figures.plots(workdir / "run.png", by_stage)
    body = page.heading(workdir, 1) + page.table(HEAD, [_row(name, lines) for name, lines in by_stage.items()])
    body += page.picture("run.png", "losses and rates")
    if spent:
        body += page.heading("Where the time went") + page.table(SPENT, [_spent(*row) for row in spent])
    for name in by_stage:
        if _is_own(workdir, table := workdir / name / CLIPS):
            title, text = f"Clips of {name}", table.read_text(encoding="utf-8", errors="replace")
            body += page.heading(title) + page.preformatted(text, title)
    samples = workdir / "samples"
    videos = [] if samples.is_symlink() else [p for p in samples.rglob("*.mp4") if _is_own(workdir, p)]
    videos = sorted(videos, key=lambda p: p.stat().st_mtime)[-NEWEST:]
    if videos:
        body += page.heading("Samples")
        body += "".join(page.video(str(p.relative_to(workdir)), f"{p.parent.name}: {p.stem}") for p in videos)
    page.write(workdir / "run.html", str(workdir), body)
    return workdir / "run.html"


def _spent(cause: str, seconds: float, share: float, words: str) -> tuple[Any, ...]:
    return cause, f"{seconds:.1f}", f"{share:.1%}", words


def _is_own(workdir: Path, path: Path) -> bool:
    """Whether a file lies in the workdir, links followed: one of a stranger must not show what else is here."""
    return path.is_file() and path.resolve().is_relative_to(workdir.resolve())


def _row(name: str, lines: Sequence[Mapping[str, Any]]) -> tuple[Any, ...]:
    def mean(key: str, rows: Sequence[Mapping[str, Any]]) -> float:
        values = [row[key] for row in rows if row.get(key) is not None]
        return float(np.mean(values)) if values else float("nan")

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
