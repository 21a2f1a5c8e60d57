"""A training run as a page: its losses, rates, and the samples of its evaluations, prompts by steps."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from osjax import json_file
from osjax.data import left_out
from osjax.errors import UserError
from osjax.pages import figures, page

RECENT = 50  # steps that "at first" and "now" are the means of, or a quarter of a short run
NEWEST = 24  # samples on the page that are of no evaluation
PROMPTS, STEPS = 12, 8  # of a grid at most: the first step and the newest ones
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
        if _is_own(workdir, table := workdir / name / left_out.TABLE):
            title, text = f"Clips of {name}", table.read_text(encoding="utf-8", errors="replace")
            body += page.heading(title) + page.preformatted(text, title)
    of_steps: set[Path] = set()
    for name in by_stage:
        by_step = _by_step(workdir, name)
        of_steps.update(path for videos in by_step.values() for path in videos.values())
        body += _grid(workdir, name, by_step)
    samples = workdir / "samples"
    others = [] if samples.is_symlink() else [p for p in samples.rglob("*.mp4") if _is_own(workdir, p)]
    videos = sorted(set(others) - of_steps, key=lambda p: p.stat().st_mtime)[-NEWEST:]
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


def _by_step(workdir: Path, stage: str) -> dict[int, dict[str, Path]]:
    """The samples of a stage's evaluations: {step: {name of the file: its path}}, in order."""
    folder = workdir / "samples" / stage
    steps = {
        int(m[1]): path
        for path in folder.glob("step-*")
        if path.is_dir() and (m := re.fullmatch(r"step-(\d+)", path.name))
    }
    files = {
        step: sorted(p for p in steps[step].iterdir() if p.suffix in (".mp4", ".png") and _is_own(workdir, p))
        for step in sorted(steps)
    }
    return {step: {path.name: path for path in paths} for step, paths in files.items() if paths}


def _grid(workdir: Path, stage: str, by_step: Mapping[int, Mapping[str, Path]]) -> str:
    """Prompts by steps. by_step: of `_by_step`."""
    if not by_step:
        return ""
    steps = list(by_step)
    shown = steps if len(steps) <= STEPS else [steps[0], *steps[1 - STEPS :]]
    names = sorted({name for step in shown for name in by_step[step]})[:PROMPTS]
    rows = []
    for name in names:
        paths = [by_step[step].get(name) for step in shown]
        prompt = next(_prompt(workdir, path) for path in reversed(paths) if path)
        rows.append(
            (prompt, [_shown(workdir, path, f"{prompt}, step {s}") for s, path in zip(shown, paths, strict=True)])
        )
    left = len(steps) - len(shown)
    more = page.paragraph(f"{left} more steps in {workdir / 'samples' / stage}") if left else ""
    return page.heading(f"Samples of {stage}") + page.grid(("prompt", *(f"step {s}" for s in shown)), rows) + more


def _shown(workdir: Path, path: Path | None, label: str) -> str:
    if path is None:
        return ""
    source = quote(str(path.relative_to(workdir)))
    return page.picture(source, label) if path.suffix == ".png" else page.player(source, label)


def _prompt(workdir: Path, path: Path) -> str:
    """The prompt of a sample by the JSON beside it; its file's name where that does not say."""
    about = path.with_suffix(".json")
    if not _is_own(workdir, about):
        return path.stem
    try:
        return str(json_file.read(about, "-", keys=("prompt",))["prompt"])
    except UserError:
        return path.stem


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
