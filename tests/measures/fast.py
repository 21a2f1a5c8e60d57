"""What fewer model calls cost a demo: `python -m tests.measures.fast WORKDIR OUT [N] [KINDS]`, of a finished demo.

N samples of held-out prompts with each choice of solver, steps, schedule, guided steps and cache: prompt match of their
pixels, PSNR of latents against 200 steps of Euler's rule, and PSNR and SSIM of the pixels against the demo's own 20
steps of it. OUT/fast.json keeps what was measured, which is not made again; the tables of docs/fast.md are printed, and
its picture is OUT/fast.svg. KINDS: only some, such as solver,cache. The workdir has to be calibrated (osjax calibrate).
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from osjax import atomic
from osjax.data import clips
from osjax.data.clips import WORDS
from osjax.evals import prompt_match, recon
from osjax.parts import pipeline
from osjax.sampling.sample import Spent

SEED = 1000  # of the first sample's noise
EXACT = {"solver": "euler", "steps": 20}  # as the demo samples
REFERENCE = {"solver": "euler", "steps": 200}


def choices():
    """(kind, changes of the settings) of all that is measured."""
    for solver, steps in (
        ("euler", (5, 10, 20, 40, 80)),
        ("heun", (3, 5, 10, 20)),
        ("dpmpp_2m", (5, 7, 10, 14, 20, 40)),
        ("unipc", (5, 7, 10, 14, 20, 40)),
    ):
        yield from (("solver", {"solver": solver, "steps": count}) for count in steps)
    for solver in ("euler", "dpmpp_2m", "unipc"):
        for count in (5, 7, 10, 20):
            yield "schedule", {"solver": solver, "steps": count, "schedule": "measured"}
    for ends in ((1.0, 0.5), (0.95, 0.0), (0.95, 0.5)):
        yield "interval", {"solver": "unipc", "steps": 10, "guidance_from": ends[0], "guidance_until": ends[1]}
    for rule, limits in (
        ("magcache", (0.03, 0.1, 0.3)),
        ("teacache", (0.05, 0.1, 0.2)),
        ("first_block", (0.05, 0.1, 0.2)),
    ):
        for limit in limits:
            for lines in (False, True):
                asked = {"reuse": rule, "reuse_limit": limit, "reuse_lines": lines}
                yield "cache", {**EXACT, **asked}
    yield "best", EXACT
    yield "best", {"solver": "unipc", "steps": 10, "schedule": "measured"}
    yield "best", {**EXACT, "reuse": "magcache", "reuse_limit": 0.1, "reuse_lines": True}
    yield "best", {**EXACT, "reuse": "first_block", "reuse_limit": 0.2, "reuse_lines": True}


class Measure:
    """Samples of the same prompts and noise with other settings."""

    def __init__(self, workdir: Path, count: int):
        self.pipe = pipeline.from_checkpoint(workdir)
        specs = clips.specs(count, SEED, clips.split()[1])
        self.specs = [replace(spec, motion=list(clips.SPEEDS)[n % 3]) for n, spec in enumerate(specs)]
        self.settings = self.pipe.settings
        self.reference, _, _, _ = self.made(REFERENCE)
        self.exact = self.made(EXACT)[1]

    def made(self, changes):
        """(latents, videos, calls that ran the blocks, calls) of a sample, the mean of all."""
        self.pipe.spent, latents, videos = Spent(), [], []
        for n, spec in enumerate(self.specs):
            one = self.pipe(
                [spec.caption], seeds=[SEED + n], motion_score=spec.motion, settings=self.settings, **changes
            )
            latents.append(one.latents_BTHWC[0])
            videos.append(one.videos_BTHWC[0])
        count = len(self.specs)
        return np.stack(latents), np.stack(videos), self.pipe.spent.ran / count, self.pipe.spent.calls / count

    def row(self, kind, changes):
        latents, videos, ran, calls = self.made(changes)
        error = np.square(latents - self.reference).mean(tuple(range(1, latents.ndim)))
        peak = np.ptp(self.reference)
        score = prompt_match.score([prompt_match.read(video) for video in videos], self.specs)
        row = {"kind": kind, **changes, "calls": calls, "ran": ran, "all": score["all"], "samples": score["samples"]}
        row |= {word: score[word] for word in WORDS}
        row["latents_db"] = float((10 * np.log10(peak**2 / np.maximum(error, 1e-12))).mean())
        row["exact_db"] = float(recon.psnr(videos, self.exact).mean())
        row["exact_worst_db"] = float(recon.psnr(videos, self.exact).min())
        row["exact_ssim"] = float(recon.ssim(videos, self.exact).mean())
        return row


def shown(row):
    """What a row says of its settings, in words."""
    words = [row["solver"], f"{row['steps']} steps"]
    words += ["measured times"] if "schedule" in row else []
    words += [f"guided {row['guidance_from']:g} to {row['guidance_until']:g}"] if "guidance_from" in row else []
    if "reuse" in row:
        words += [f"{row['reuse']} {row['reuse_limit']:g}", "lines" if row["reuse_lines"] else "the last"]
    return ", ".join(words)


def table(rows):
    """Markdown."""
    heads = "calls", "with blocks", "all words", "shape", "latents, dB", "pixels, dB", "worst", "SSIM"
    yield f"| | {' | '.join(heads)} |"
    yield f"|---|{'--:|' * len(heads)}"
    for row in rows:
        numbers = f"{row['calls']:.0f} | {row['ran']:.1f} | {row['all']:.0%} | {row['shape']:.0%}"
        pixels = f"{row['exact_db']:.1f} | {row['exact_worst_db']:.1f} | {row['exact_ssim']:.3f}"
        numbers += f" | {row['latents_db']:.1f}"
        yield f"| {shown(row)} | {numbers} | {pixels} |"


def picture(path, rows):
    """Quality against calls that ran the blocks, a line for each solver and schedule."""
    figure = Figure(figsize=(8, 4), layout="tight")
    axes = figure.subplots()
    for schedule in (None, "measured"):
        for number, solver in enumerate(("euler", "heun", "dpmpp_2m", "unipc")):
            points = [row for row in rows if row["kind"] in ("solver", "schedule")]
            points = [row for row in points if (row["solver"], row.get("schedule")) == (solver, schedule)]
            if points:
                x, y = zip(*((row["ran"], row["latents_db"]) for row in points), strict=True)
                label = solver + (", measured times" if schedule else "")
                axes.plot(x, y, "s--" if schedule else "o-", color=f"C{number}", markersize=4, label=label)
    points = [row for row in rows if row["kind"] == "cache" and row["reuse_lines"]]
    if points:
        x, y = zip(*((row["ran"], row["latents_db"]) for row in points), strict=True)
        axes.plot(x, y, "kx", label="20 steps of euler with a cache, lines")
    axes.set(xscale="log", xlabel="calls a sample that run the blocks", ylabel="latents against 200 steps, dB")
    axes.set_xticks([10, 20, 40, 80, 160], ["10", "20", "40", "80", "160"])
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path)


def main(workdir: str, out: str, count: str = "24", kinds: str = "") -> None:
    folder = Path(out)
    path = folder / "fast.json"
    rows = json.loads(path.read_text()) if path.is_file() else []
    measure = None
    for kind, changes in choices():
        known = any(row["kind"] == kind and all(row.get(k) == v for k, v in changes.items()) for row in rows)
        if known or (kinds and kind not in kinds.split(",")):
            continue
        measure = measure or Measure(Path(workdir), int(count))
        rows.append(measure.row(kind, changes))
        folder.mkdir(parents=True, exist_ok=True)
        atomic.write_text(path, json.dumps(rows, indent=1) + "\n")
    for kind in dict.fromkeys(row["kind"] for row in rows):
        print(
            f"\n{kind}, {rows[0]['samples']} samples\n", *table([row for row in rows if row["kind"] == kind]), sep="\n"
        )
    picture(folder / "fast.svg", rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
