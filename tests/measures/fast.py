"""What fewer model calls cost a demo: `python -m tests.measures.fast WORKDIR OUT.json [N]`, of a finished demo.

N samples of held-out prompts with each choice of solver, steps, schedule, guided steps and cache: prompt match of what
the MP4s of the demo would show, PSNR of latents against 200 steps of Euler's rule, and for caches PSNR and SSIM of the
pixels against the exact run. Choices that OUT.json has are not made again. Prints docs/fast.md's tables; the workdir
has to be calibrated (osjax calibrate).
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

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
                asked = {"reuse": rule, "reuse_limit": limit, "reuse_lines": lines, "reuse_run": 3}
                yield "cache", {**EXACT, **asked}


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


def main(workdir: str, out: str, count: str = "24") -> None:
    path = Path(out)
    rows = json.loads(path.read_text()) if path.is_file() else []
    measure = Measure(Path(workdir), int(count))
    for kind, changes in choices():
        if not any(row["kind"] == kind and all(row.get(k) == v for k, v in changes.items()) for row in rows):
            rows.append(measure.row(kind, changes))
            print(rows[-1], flush=True)
            atomic.write_text(path, json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
