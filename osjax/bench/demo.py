"""The demo: a small curriculum on procedural clips, from MP4 files to a report. Its training is `osjax train`'s.

Each part writes its result under the workdir and is skipped when it is there, so an interrupted demo goes on.
"""

import contextlib
import json
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from osjax import atomic, json_file
from osjax.data import clips, video
from osjax.data.clips import ClipSpec
from osjax.errors import UserError
from osjax.evals import edges, prompt_match
from osjax.evals.prompt_match import Reading
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
SHOWN = 24  # samples on the page
SHEET_I2V = "contact_sheet_i2v.png"
I2V_SCORE = 4  # a first frame tells nothing of its clip's speed


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
    """Seconds spent on each part, over all the runs that it took: by the clock, and of processors.

    The second ones are of all threads together, and do not depend on what else the machine does.
    """

    def __init__(self, path: Path, started: float):
        self.path, self.last = path, (started, 0.0)
        self.seconds: dict[str, list[float]] = {}
        with contextlib.suppress(UserError, ValueError, TypeError):  # of a first start, or damaged: counted from now on
            told = json_file.read(path, "-").items()
            self.seconds = {part: [float(clock), float(processors)] for part, (clock, processors) in told}

    def mark(self, part: str) -> None:
        now = time.monotonic(), time.process_time()
        before = self.seconds.get(part, [0.0, 0.0])
        self.seconds[part] = [old + new - last for old, new, last in zip(before, now, self.last, strict=True)]
        self.last = now
        atomic.write_text(self.path, json.dumps(self.seconds))

    @property
    def total(self) -> tuple[float, float]:
        """Seconds of everything, by the clock and of processors."""
        clock, processors = zip(*self.seconds.values(), strict=True)
        return sum(clock), sum(processors)


class Made(NamedTuple):
    """Samples of one kind in one order: what they are of, their videos, their MP4 files, and what these show."""

    specs: Sequence[ClipSpec]
    videos_BTHWC: np.ndarray
    files: Sequence[Path]
    readings: Sequence[Reading]

    @property
    def score(self) -> dict[str, float | int]:
        return prompt_match.score(self.readings, self.specs)


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
        # The same prompts and noise at every motion score.
        by_motion = [self._sample(f"t2v-motion-{score}", specs, score) for score in clips.SPEEDS]
        first = real[: cfg.i2v, :1]
        given = {"refs": first, "mode": "i2v_head", "guidance": cfg.i2v_guidance}
        i2v = self._sample("i2v", self.held_out[: cfg.i2v], I2V_SCORE, **given)
        encode, decode = self.autoencoder.encode, self.autoencoder.decode
        rebuilt = np.concatenate([to_uint8(decode(encode(v))) for v in _in_batches(real, cfg.batch)])
        t2v = Made(*(list(chain(*columns)) for columns in zip(*by_motion, strict=True)))
        self.spent.mark("samples")
        lines = {name: stage.lines_of(name, self.place) for name in self.names}
        seconds, processor_seconds = self.spent.total
        result = {
            "prompt_match": t2v.score,
            "motion_order": prompt_match.motion_order([*zip(*(made.readings for made in by_motion), strict=True)]),
            "ae_psnr_db": float(psnr(rebuilt, real).mean()),
            "ae_edges": edges.kept(rebuilt, real, self.held_out),
            "i2v_first_frame_psnr_db": float(psnr(np.stack([video.decode(f, 1) for f in i2v.files]), first).mean()),
            "i2v_prompt_match": i2v.score,
            "seconds": seconds,
            "processor_seconds": processor_seconds,
            "seconds_by_part": self.spent.seconds,
            "peak_rss_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            "stages": [
                {
                    "name": name,
                    "steps": len(of_stage),
                    "final_loss": float(np.mean([line["loss"] for line in of_stage[-50:]])),
                    "seconds": self.spent.seconds[name][0],
                    "processor_seconds": self.spent.seconds[name][1],
                }
                for name, of_stage in lines.items()
            ],
        }
        self._write_report(result, lines, t2v, i2v, first)

    def _sample(self, name: str, of: Sequence[ClipSpec], score: int, **given: Any) -> Made:
        """Samples of the captions of specifications, written to samples/NAME and read back from the files.

        score: of the motion that is asked for instead of their own. given: references, and settings for them.
        """
        specs = [replace(spec, motion=score) for spec in of]
        captions = [spec.caption for spec in specs]
        seeds = range(self.seed, self.seed + len(specs))  # or all prompts would start from one noise
        bar = _bar(f"sample {name}")
        made = self.pipe(captions, seeds=seeds, motion_score=score, progress=bar, **given)
        folder = self.place.workdir / "samples" / name
        files = write_samples(folder, made.videos_BTHWC, captions, made.settings, self.fps, SAMPLE_CRF)
        # Judged on what a viewer gets: the MP4 files, decoded again.
        return Made(specs, made.videos_BTHWC, files, [prompt_match.read(video.decode(file)) for file in files])

    def _shown(self, made: Made, i: int) -> page.Shown:
        file = made.files[i].relative_to(self.place.workdir.absolute())
        return page.Shown(str(file), _words(made.specs[i], made.readings[i]))

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
        prompts, scores = self.cfg.prompts, len(clips.SPEEDS)
        at = [n % scores * prompts + n for n in range(min(prompts, SHOWN))]  # a prompt each, at all scores in turn
        captions = [f"{t2v.specs[i].caption}, motion {t2v.specs[i].motion}" for i in at[: SHOWN // 2]]
        figures.contact_sheet(folder / "contact_sheet.png", [t2v.videos_BTHWC[i] for i in at[: SHOWN // 2]], captions)
        given = [np.concatenate([f, v]) for f, v in zip(first_B1HWC[:6], i2v.videos_BTHWC[:6], strict=True)]
        captions = [f"given frame, then: {s.caption}" for s in i2v.specs[:6]]
        figures.contact_sheet(folder / SHEET_I2V, given, captions)
        figures.curves(folder / "training.svg", lines)
        atomic.write_text(folder / "report.json", json.dumps(result, indent=2) + "\n")
        samples = {
            "Held-out prompts": [self._shown(t2v, i) for i in at],
            "From a given first frame": [self._shown(i2v, i) for i in range(min(len(i2v.specs), SHOWN // 4))],
        }
        pictures = {"Training": "training.svg", "Frames": "contact_sheet.png", "Frames after given ones": SHEET_I2V}
        commands = {
            "Sample more": f'osjax sample --config.workdir={folder} --motion-score=7 --prompt "{t2v.specs[0].caption}"',
            "Change it": "osjax demo --help; every key is in configs/demo.py",
        }
        page.write(folder / "report.html", result, samples, pictures, commands)
        match = result["prompt_match"]
        words = ", ".join(f"{word} {match[word]:.1%}" for word in clips.WORDS)
        print(
            f"held-out prompts: {words}; all of them {match['all']:.1%}; 1, 4, 7 in order {result['motion_order']:.1%}"
            f"\nautoencoder {result['ae_psnr_db']:.1f} dB, edges {result['ae_edges']:.0%}; first frame "
            f"{result['i2v_first_frame_psnr_db']:.1f} dB; {result['seconds'] / 60:.1f} min, "
            f"{result['processor_seconds'] / 60:.1f} min of processors"
            f"\nsee {folder / 'report.html'}"
        )


def _words(spec: ClipSpec, reading: Reading) -> list[page.Word]:
    """The prompt of a sample in pieces, each word judged by what was read."""
    right = reading.right(spec)

    def judged(word: str) -> page.Word:
        return page.Word(str(getattr(spec, word)), right[word], str(getattr(reading, word) or "nothing"))

    scene = judged("tint"), page.Word(" "), judged("background"), page.Word(" background, motion score ")
    what = page.Word("a "), judged("colour"), page.Word(" "), judged("shape"), page.Word(" moves ")
    return [*what, judged("direction"), page.Word(" over a "), *scene, judged("motion")]


def _in_batches(videos_uint8: np.ndarray, size: int) -> Iterator[jax.Array]:
    for start in range(0, len(videos_uint8), size):
        yield jnp.asarray(to_float(videos_uint8[start : start + size]))


def _bar(label: str):
    return lambda items: tqdm(items, desc=label, unit="video", mininterval=1)
