"""The demo: a small curriculum on procedural clips, from MP4 files to a report. Its training is `osjax train`'s.

Each part writes its result under the workdir and is skipped when it is there, so an interrupted demo goes on.
"""

import contextlib
import json
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from osjax import atomic, json_file
from osjax.data import clips, video
from osjax.errors import UserError
from osjax.evals import prompt_match
from osjax.evals.recon import psnr
from osjax.pages import demo as page
from osjax.pages import figures
from osjax.parallel import mesh as device_mesh
from osjax.parts import autoencoder, pipeline
from osjax.parts.demo import DemoReport
from osjax.parts.run import Run
from osjax.sampling.autoencoder import to_float, to_uint8
from osjax.sampling.write import write_samples
from osjax.stages import stage
from osjax.stages.curriculum import Curriculum

SAMPLE_CRF = 18  # of x264: samples are judged by their pixels, so little is lost on the way to a file


def run(checked: Run, asked: DemoReport, started: float) -> None:
    """Make the clips, train, sample, measure and report; what is there is not made again.

    checked: the run. asked: of its report. started: `time.monotonic` when the command began.
    """
    keys = checked.keys
    if not keys.clips.train or not keys.clips.held_out:
        raise UserError("a demo shows what it learned on its own clips: use configs/demo.py, or run osjax train")
    curriculum = Curriculum(checked)
    with curriculum.alone("osjax demo"):
        spent = Stopwatch(checked.place.workdir / "seconds.json", started)
        for name in ("train", "held_out"):
            curriculum.own.path(name)
        spent.mark("data")
        curriculum.train(stage.Options(), each=spent.mark)
        Report(curriculum, asked, spent).make()


class Stopwatch:
    """Seconds spent on each part, over all the runs that it took."""

    def __init__(self, path: Path, started: float):
        self.path, self.last = path, started
        self.seconds: dict[str, float] = {}
        with contextlib.suppress(UserError, ValueError, TypeError):  # of a first start, or damaged: counted from now on
            self.seconds = {part: float(took) for part, took in json_file.read(path, "-").items()}

    def mark(self, part: str) -> None:
        now = time.monotonic()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self.last
        self.last = now
        atomic.write_text(self.path, json.dumps(self.seconds))

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


class Made(NamedTuple):
    """Samples of one kind: the clips that they are of, their videos, and the MP4 files of these in the same order."""

    specs: Sequence[clips.ClipSpec]
    videos_BTHWC: np.ndarray
    files: Sequence[Path]


class Report:
    """Samples of held-out prompts and given first frames with the final weights, measured and shown."""

    def __init__(self, curriculum: Curriculum, asked: DemoReport, spent: Stopwatch):
        self.cfg, self.spent, self.place = asked, spent, curriculum.place
        self.held_out, self.names = curriculum.own.held_out, list(curriculum.stages)
        last = curriculum.run.stages[self.names[-1]]
        settings = last.keys.sample
        self.size, self.frames, self.fps = settings["height"], settings["frames"], settings["fps"]
        self.seed = last.keys.seed
        self.pipe = pipeline.from_checkpoint(self.place.workdir)
        one = device_mesh.make(devices=jax.local_devices()[:1])
        self.autoencoder = autoencoder.read(last.autoencoder, self.place, one)

    def make(self) -> None:
        cfg = self.cfg
        specs = [self.held_out[i % len(self.held_out)] for i in range(cfg.prompts)]
        real = np.stack([clips.render(s, self.size, self.frames) for s in self.held_out])
        seeds = range(self.seed, self.seed + cfg.prompts)  # or all prompts would start from one noise
        captions = [s.caption for s in specs]
        t2v = self.pipe(captions, seeds=seeds, progress=_bar("sample t2v"))
        i2v_specs = self.held_out[: cfg.i2v]
        first = real[: cfg.i2v, :1]
        i2v_captions = [s.caption for s in i2v_specs]
        i2v = self.pipe(
            i2v_captions,
            refs=first,
            seeds=seeds[: cfg.i2v],
            mode="i2v_head",
            guidance=cfg.i2v_guidance,
            progress=_bar("sample i2v"),
        )

        folder = self.place.workdir / "samples"
        files = write_samples(folder / "t2v", t2v.videos_BTHWC, captions, t2v.settings, self.fps, SAMPLE_CRF)
        i2v_files = write_samples(folder / "i2v", i2v.videos_BTHWC, i2v_captions, i2v.settings, self.fps, SAMPLE_CRF)
        # Judged on what a viewer gets: the MP4 files, decoded again.
        match = prompt_match.score([video.decode(f) for f in files], specs)
        first_frames = np.stack([video.decode(f, 1) for f in i2v_files])
        encode, decode = self.autoencoder.encode, self.autoencoder.decode
        rebuilt = np.concatenate([to_uint8(decode(encode(v))) for v in _in_batches(real, cfg.batch)])
        self.spent.mark("samples")
        lines = {name: stage.lines_of(name, self.place) for name in self.names}
        result = {
            "prompt_match": match,
            "ae_psnr_db": float(psnr(rebuilt, real).mean()),
            "i2v_first_frame_psnr_db": float(psnr(first_frames, first).mean()),
            "i2v_prompt_match": prompt_match.score([video.decode(f) for f in i2v_files], i2v_specs),
            "seconds": self.spent.total,
            "seconds_by_part": self.spent.seconds,
            "peak_rss_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            "stages": [
                {
                    "name": name,
                    "steps": len(of_stage),
                    "final_loss": float(np.mean([line["loss"] for line in of_stage[-50:]])),
                    "seconds": self.spent.seconds[name],
                }
                for name, of_stage in lines.items()
            ],
        }
        of_text, of_images = Made(specs, t2v.videos_BTHWC, files), Made(i2v_specs, i2v.videos_BTHWC, i2v_files)
        self._write_report(result, lines, of_text, of_images, first)

    def _write_report(
        self,
        result: Mapping[str, Any],
        lines: Mapping[str, Sequence[Mapping[str, Any]]],
        t2v: Made,
        i2v: Made,
        first_B1HWC: np.ndarray,
    ) -> None:
        """Write pictures, report.json and the page, and print the figures. lines: metrics of each stage."""
        folder = self.place.workdir
        shown = list(t2v.videos_BTHWC[:12])
        figures.contact_sheet(folder / "contact_sheet.png", shown, [s.caption for s in t2v.specs[:12]])
        given = [np.concatenate([f, v]) for f, v in zip(first_B1HWC[:6], i2v.videos_BTHWC[:6], strict=True)]
        captions = [f"given frame, then: {s.caption}" for s in i2v.specs[:6]]
        figures.contact_sheet(folder / "contact_sheet_i2v.png", given, captions)
        figures.plots(folder / "training.png", lines)
        atomic.write_text(folder / "report.json", json.dumps(result, indent=2) + "\n")
        pictures = {
            "Held-out prompts": "contact_sheet.png",
            "From a given first frame": "contact_sheet_i2v.png",
            "Training": "training.png",
        }
        pairs = zip([*t2v.specs[:8], *i2v.specs[:4]], [*t2v.files[:8], *i2v.files[:4]], strict=True)
        videos = [(spec.caption, str(file.relative_to(folder.absolute()))) for spec, file in pairs]
        page.write(folder / "report.html", result, pictures, videos)
        match = result["prompt_match"]
        print(
            f"held-out prompts: colour {match['colour']:.1%}, direction {match['direction']:.1%}, shape "
            f"{match['shape']:.1%}; autoencoder {result['ae_psnr_db']:.1f} dB; first frame "
            f"{result['i2v_first_frame_psnr_db']:.1f} dB; {result['seconds'] / 60:.1f} min"
            f"\nsee {folder / 'report.html'}"
        )


def _in_batches(videos_uint8: np.ndarray, size: int) -> Iterator[jax.Array]:
    for start in range(0, len(videos_uint8), size):
        yield jnp.asarray(to_float(videos_uint8[start : start + size]))


def _bar(label: str):
    return lambda items: tqdm(items, desc=label, unit="video", mininterval=1)
