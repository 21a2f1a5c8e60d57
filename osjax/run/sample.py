"""`osjax sample`: prompts, images and clips to videos on disk. A batch that was interrupted goes on where it was."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from tqdm import tqdm

import osjax
from osjax.errors import UserError
from osjax.run import compiled, sample_memory
from osjax.run.pipeline import Pipeline
from osjax.sampling import names, prompts, references, t2i2v
from osjax.sampling.job import Job
from osjax.sampling.settings import MODES, T2I2V, SampleSettings
from osjax.sampling.write import Output

# flag -> (config key, type, help); a flag that is not given leaves the config as it is.
FLAGS = {
    "mode": ("sample.mode", str, f"one of {', '.join(MODES)}"),
    "resolution": ("sample.resolution", str, "size table, such as 256px or 768px"),
    "aspect-ratio": ("sample.aspect_ratio", str, "width:height, such as 16:9, 9:16 or 1:1"),
    "height": ("sample.height", int, "pixels, with --width instead of a resolution"),
    "width": ("sample.width", int, "pixels"),
    "frames": ("sample.frames", int, "4k + 1 for a causal autoencoder, multiples of 4 for the DC-AE"),
    "steps": ("sample.steps", int, "of the sampler"),
    "guidance": ("sample.guidance", float, "on the text; 1 is none"),
    "guidance-img": ("sample.guidance_img", float, "on given images and clips; 1 is none"),
    "negative": ("sample.negative", str, "negative prompt"),
    "motion-score": ("sample.motion_score", int, "stated at the end of the prompt: 1 still, 7 fast"),
    "fps": ("sample.fps", int, "frames per second of the file"),
    "seed": ("sample.seed", int, "sample k of a prompt takes the seed plus k"),
    "samples": ("output.samples", int, "videos a prompt"),
    "output": ("output.folder", str, "folder to write to"),
    "layout": ("output.layout", str, f"of file names: {' or '.join(names.LAYOUTS)}"),
    "workdir": ("workdir", str, "of a finished run, to sample from what was trained there"),
    "cache": ("compilation_cache", str, "folder that keeps compiled programs"),
}
SWITCHES = {
    "offload": ("offload", "keep weights on the host; models visit the device one after the other"),
    "int8": ("int8", "int8 weights in the blocks of the video model"),
    "overwrite": ("output.overwrite", "make again what is there with other settings"),
}


def add_options(parser) -> None:
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--prompt", action="append", metavar="TEXT", help="what to show; may be given several times")
    what.add_argument("--prompts", metavar="FILE", help="txt, csv or jsonl with the columns text, ref, neg, name, seed")
    parser.add_argument(
        "--ref", action="append", metavar="PATHS", help="images or videos of a --prompt, several separated by ';'"
    )
    for flag, (key, kind, text) in FLAGS.items():
        parser.add_argument(f"--{flag}", type=kind, help=f"{text} (config.{key})")
    parser.add_argument(
        "--memory", action="store_true", help="compile only: write a table of memory and compile time to the folder"
    )
    parser.add_argument(
        "--topology", metavar="NAME", help="with --memory: compile for this TPU, such as v5p:2x2x1, without having it"
    )
    for flag, (key, text) in SWITCHES.items():
        parser.add_argument(f"--{flag}", action="store_true", default=None, help=f"{text} (config.{key})")


def run(cfg: ConfigDict, args) -> None:
    for flag, (key, *_) in {**FLAGS, **SWITCHES}.items():
        _set(cfg, key, getattr(args, flag.replace("-", "_")))
    if args.memory:
        mesh = sample_memory.topology_mesh(args.topology, cfg.mesh) if args.topology else None
        sample_memory.report(Pipeline.from_config(cfg, mesh), Path(cfg.output.folder), mesh)
        return
    if args.topology:
        raise UserError("--topology goes with --memory: nothing can be sampled on devices that are not here", status=2)
    requests = _requests(args)
    if cfg.output.samples < 1:
        raise UserError(f"output.samples is {cfg.output.samples}: ask for at least 1")
    compiled.keep(cfg.compilation_cache)
    pipe = Pipeline.from_config(cfg)
    batch = Batch(pipe, pipe.settings, cfg, requests)
    if pipe.settings.mode == T2I2V:
        batch.make_first_frames()
    paths = batch.make()
    print(f"{len(batch.wanted)} samples in {Path(cfg.output.folder)}, {len(paths)} made now")


def _set(cfg: ConfigDict, key: str, value: Any) -> None:
    if value is None:
        return
    *groups, name = key.split(".")
    for group in groups:
        cfg = cfg[group]
    cfg[name] = value


def _requests(args) -> list[prompts.Request]:
    if args.prompts is not None:
        if args.ref:
            raise UserError("--ref goes with --prompt: write references into the column ref of --prompts", status=2)
        return prompts.read(args.prompts)
    if not args.prompt:
        raise UserError('say what to show: --prompt "..." or --prompts=FILE', status=2)
    if args.ref and len(args.ref) != len(args.prompt):
        raise UserError(f"{len(args.ref)} --ref for {len(args.prompt)} --prompt: give one each", status=2)
    if not all(text.strip() for text in args.prompt):
        raise UserError("a --prompt is empty: write what to show", status=2)
    refs = [references.paths(ref) for ref in args.ref] if args.ref else [()] * len(args.prompt)
    return [prompts.Request(text, ref) for text, ref in zip(args.prompt, refs, strict=True)]


@dataclass(frozen=True)
class Wanted:
    """A sample to make: its file name, what to make, and what its JSON will say."""

    stem: str
    job: Job
    says: dict[str, Any]


class Batch:
    """All samples of a command line, of which those that are finished are not made again."""

    def __init__(self, pipe: Pipeline, settings: SampleSettings, cfg: ConfigDict, requests: list[prompts.Request]):
        pipe.check(settings)
        self.pipe, self.settings, self.overwrite = pipe, settings, cfg.output.overwrite
        self.output = Output(Path(cfg.output.folder), cfg.output.layout)
        self.model = _sources(cfg)
        _check_references(settings, requests)
        self.wanted = list(self._wanted(requests, cfg.output.samples))
        names.distinct([wanted.stem for wanted in self.wanted])
        self.missing = [w for w in self.wanted if self.overwrite or not self._finished(w)]

    def _finished(self, wanted: Wanted) -> bool:
        return self.output.finished(wanted.stem, self.settings.frames, wanted.says)

    def _wanted(self, requests: list[prompts.Request], samples: int) -> Iterator[Wanted]:
        given = bool(self.settings.condition.references) and self.settings.mode != T2I2V
        jobs = self.pipe.jobs(
            self.settings,
            [r.text for r in requests],
            [r.ref for r in requests] if given else None,
            [self.settings.negative if r.neg is None else r.neg for r in requests],
            [self.settings.seed if r.seed is None else r.seed for r in requests],
            samples,
        )
        for n, job in enumerate(jobs):
            request, sample = requests[n // samples], n % samples
            stem = names.stem(self.output.layout, n // samples, request.text, request.name, sample, samples)
            files = [str(path.resolve()) for path in request.ref]
            row = self.pipe.describe_row(job, self.settings)
            says = {**self.pipe.describe(self.settings), **row, "sample": sample, "references": files}
            yield Wanted(stem, job, {**says, "model": self.model, "osjax": osjax.__version__})

    def make_first_frames(self) -> None:
        """Mode t2i2v: an image of each missing sample, kept as PNG, by a model that is freed before the video's."""
        output = Output(self.output.beside("first_frames"))
        still = t2i2v.image_settings(self.settings)
        says = {w.stem: {**self.pipe.describe_row(w.job, still), "model": self.model} for w in self.missing}
        asked = {key: getattr(still, key) for key in ("resolution", "aspect_ratio", "steps", "guidance")}
        says = {stem: {**row, **asked} for stem, row in says.items()}
        todo = [w for w in self.missing if self.overwrite or not output.finished(w.stem, 1, says[w.stem])]
        if todo:
            with _Bars("first frames", len(todo), still.steps) as bars:
                jobs, size = [w.job for w in todo], self.pipe.size(self.settings)
                images = t2i2v.first_frames(self.pipe.image, jobs, self.settings, size, bars.step)
                for wanted, image in zip(todo, images, strict=True):
                    output.write(wanted.stem, image[None], says[wanted.stem], self.settings.fps)
                    bars.sample()
        self.missing = [replace(w, job=replace(w.job, reference=output.media(w.stem, 1))) for w in self.missing]

    def make(self) -> list[Path]:
        """Make what is missing; the paths of what was made."""
        paths = []
        with _Bars("samples", len(self.missing), self.settings.steps) as bars:
            made = self.pipe.stream([w.job for w in self.missing], self.settings, bars.step)
            for wanted, (video, _) in zip(self.missing, made, strict=True):
                paths.append(self.output.write(wanted.stem, video, wanted.says, self.settings.fps))
                bars.sample()
        return paths


def _sources(cfg: ConfigDict) -> dict[str, str]:
    """The files that the models come from."""
    files = {"workdir": cfg.workdir}
    if not cfg.workdir:
        files = {"video": cfg.model.weights, "autoencoder": cfg.autoencoder.weights}
    if cfg.sample.mode == T2I2V:
        files |= {"image": cfg.image.model.weights, "image autoencoder": cfg.image.autoencoder.weights}
    return {name: str(Path(file).resolve()) for name, file in files.items()}


class _Bars:
    """A bar over samples and one over the steps of the sample in work."""

    def __init__(self, label: str, samples: int, steps: int):
        self._samples = tqdm(total=samples, desc=label, unit="sample", disable=not samples)
        self._steps = tqdm(total=steps, desc="steps", unit="step", leave=False, position=1, disable=not samples)

    def __enter__(self) -> "_Bars":
        return self

    def __exit__(self, *error) -> None:
        self._steps.close()
        self._samples.close()

    def step(self) -> None:
        if self._steps.n == self._steps.total:  # the next sample began
            self._steps.reset()
        self._steps.update()

    def sample(self) -> None:
        self._samples.update()


def _check_references(settings: SampleSettings, requests: list[prompts.Request]) -> None:
    needs = bool(settings.condition.references) and settings.mode != T2I2V
    for number, request in enumerate(requests, 1):
        if needs and not request.ref:
            raise UserError(f"mode {settings.mode} needs a reference for prompt {number}: give --ref, or a ref column")
        if request.ref and not needs:
            raise UserError(f"mode {settings.mode} takes no reference, prompt {number} has one: give another --mode")
