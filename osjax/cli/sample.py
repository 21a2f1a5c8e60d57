"""`osjax sample`: prompts, images and clips to videos on disk. A batch that was interrupted goes on where it was."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from osjax import lock
from osjax.cli import sample_memory
from osjax.errors import UserError
from osjax.evals import recon
from osjax.flow.solvers import SOLVERS
from osjax.parallel import compiled
from osjax.parts import pipeline, sampling, trained_on
from osjax.parts.sampling import SamplingKeys
from osjax.sampling import names, prompts, references, refined
from osjax.sampling.batch import Batch
from osjax.sampling.refine import TextServer
from osjax.sampling.settings import SCHEDULES, T2I2V, mode_names
from osjax.sampling.skips import CACHES, NONE
from osjax.sampling.write import CRF, Output

log = logging.getLogger(__name__)
FLICKERING = "temporal_flickering"
SHOWN = 20  # files that are named at the end
# flag -> (config key, type, help); a flag that is not given leaves the config as it is.
FLAGS = {
    "mode": ("sample.mode", str, f"one of {', '.join(mode_names())}"),
    "resolution": ("sample.resolution", str, "size table, such as 256px or 768px"),
    "aspect-ratio": ("sample.aspect_ratio", str, "width:height, such as 16:9, 9:16 or 1:1"),
    "height": ("sample.height", int, "pixels, with --width instead of a resolution"),
    "width": ("sample.width", int, "pixels"),
    "frames": ("sample.frames", int, "4k + 1 for a causal autoencoder, multiples of 4 for the DC-AE"),
    "steps": ("sample.steps", int, "from noise to video"),
    "solver": ("sample.solver", str, f"of a step: {', '.join(SOLVERS)}"),
    "schedule": ("sample.schedule", str, f"of the steps: {', '.join(SCHEDULES)}"),
    "reuse": ("sample.reuse", str, f"by which calls skip the model's blocks: none, {', '.join(CACHES)}"),
    "reuse-limit": ("sample.reuse_limit", float, "how much may change until they run again"),
    "reuse-run": ("sample.reuse_run", int, "calls that are skipped on end, at most"),
    "guidance": ("sample.guidance", float, "on the text; 1 is none"),
    "guidance-img": ("sample.guidance_img", float, "on given images and clips; 1 is none"),
    "guidance-from": ("sample.guidance_from", float, "time of the first guided step, 1 is noise"),
    "guidance-until": ("sample.guidance_until", float, "time down to which steps are guided, 0 is data"),
    "negative": ("sample.negative", str, "negative prompt"),
    "motion-score": ("sample.motion_score", int, "stated at the end of the prompt: 1 still, 7 fast"),
    "fps": ("sample.fps", int, "frames per second of the file"),
    "seed": ("sample.seed", int, "sample k of a prompt takes the seed plus k"),
    "samples": ("output.samples", int, "videos a prompt"),
    "flicker-samples": (
        "output.flicker_samples",
        int,
        "videos a prompt of the suite temporal_flickering: 25",
    ),
    "output": ("output.folder", str, "folder to write to"),
    "layout": ("output.layout", str, f"of file names: {' or '.join(names.LAYOUTS)}"),
    "workdir": ("workdir", str, "of a finished run, to sample from what was trained there"),
    "cache": ("compilation_cache", str, "folder that keeps compiled programs"),
}
SWITCHES = {
    "offload": ("offload", "keep weights on the host; models visit the device one after the other"),
    "int8": ("int8", "int8 weights in the blocks of the video model"),
    "by-suite": ("output.by_suite", "a folder for the samples of each file of --prompts=FOLDER, or column suite"),
    "overwrite": ("output.overwrite", "make again what is there with other settings"),
}


def add_requests(parser) -> None:
    """Declare what says which samples to make, on an `argparse.ArgumentParser`, for `requests_of`."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--prompt", action="append", metavar="TEXT", help="what to show; may be given several times")
    what.add_argument(
        "--prompts",
        metavar="FILE",
        help="txt, csv or jsonl with the columns text, ref, neg, name, seed, suite; or a folder of such files",
    )
    parser.add_argument(
        "--ref", action="append", metavar="PATHS", help="images or videos of a --prompt, several separated by ';'"
    )


def add_options(parser) -> None:
    add_requests(parser)
    parser.add_argument("--refine", metavar="URL", help="text server, ending in /v1, that makes prompts fuller first")
    parser.add_argument("--refine-model", metavar="NAME", help="by which that server knows its model")
    parser.add_argument(
        "--refine-host", action="append", metavar="NAME", help="another machine that prompts may go to with --refine"
    )
    for flag, (key, kind, text) in FLAGS.items():
        parser.add_argument(f"--{flag}", type=kind, help=f"{text} (config.{key})")
    parser.add_argument(
        "--memory", action="store_true", help="compile only: write a table of memory and compile time to the folder"
    )
    parser.add_argument(
        "--topology", metavar="NAME", help="with --memory: compile for this TPU, such as v5p:2x2x1, without having it"
    )
    parser.add_argument(
        "--compare", action="store_true", help="with --reuse: make each sample exactly as well, and print PSNR and SSIM"
    )
    for flag, (key, text) in SWITCHES.items():
        parser.add_argument(f"--{flag}", action="store_true", default=None, help=f"{text} (config.{key})")


def run(cfg: ConfigDict, args) -> None:
    for flag, (key, *_) in {**FLAGS, **SWITCHES}.items():
        put(cfg, key, getattr(args, flag.replace("-", "_")))
    if args.memory:
        sample_memory.run(cfg, args.topology)
        return
    if args.topology:
        raise UserError("--topology goes with --memory: nothing can be sampled on devices that are not here", status=2)
    requests = requests_of(args)
    keys = sampling.of_config(cfg)
    compiled.keep(keys.compilation_cache)
    pipe = pipeline.of_keys(keys)
    output = Output(Path(keys.output.folder), keys.output.layout, keys.output.by_suite, keys.output.crf)
    if pipe.settings.frames == 1 and keys.output.crf != CRF:
        raise UserError(f"config.output.crf is {keys.output.crf}, but one frame is a PNG: leave it out", status=2)
    requests = _flickering(refined.read(_text_server(args), requests, pipe.settings, output.settings_folder), keys)
    size = pipe.settings.frames, *pipe.size(pipe.settings)
    for line in trained_on.unlike(keys, [request.text for request in requests], *size):
        log.warning("%s", line)
    compared = _Compared() if args.compare else None
    if compared:
        if pipe.settings.reuse == NONE:
            raise UserError("--compare is for samples of --reuse: these are exact", status=2)
        recon.ssim_function(*size[1:])  # what cannot be compared is refused before it is made
    with lock.held(output.settings_folder, "osjax sample"):  # of VBench, which wants videos alone, not the videos'
        batch = Batch(pipe, pipe.settings, requests, output, _sources(keys), keys.output.samples, keys.output.overwrite)
        if pipe.settings.mode == T2I2V:
            batch.make_first_frames()
        paths = batch.make(compared)
    if pipe.settings.reuse != NONE and paths:
        print(f"{pipe.spent.ran} model calls ran the blocks, {pipe.spent.calls - pipe.spent.ran} skipped them")
    if compared and paths:
        print(compared.summary)
    more = [f"... and {len(paths) - SHOWN} more"] if len(paths) > SHOWN else []
    print("\n".join([*map(_shown, paths[:SHOWN]), *more, _summary(batch, output, len(paths))]))


class _Compared:
    """PSNR and SSIM of samples against the exact ones, for `Batch.make`."""

    def __init__(self):
        self.decibels: list[float] = []
        self.ssim: list[float] = []

    def __call__(self, video_THWC: np.ndarray, exact_THWC: np.ndarray) -> None:
        self.decibels.append(float(recon.psnr(video_THWC[None], exact_THWC[None])[0]))
        self.ssim.append(float(recon.ssim(video_THWC[None], exact_THWC[None])[0]))

    @property
    def summary(self) -> str:
        mean, least = np.mean(self.decibels), min(self.decibels)
        return f"against the exact samples: PSNR {mean:.1f} dB, at least {least:.1f}; SSIM {np.mean(self.ssim):.4f}"


def _summary(batch: Batch, output: Output, made: int) -> str:
    count = len(batch.wanted)
    return f"{count} sample{'s' if count > 1 else ''} in {output.folder}, {made} made now"


def _shown(path: Path) -> str:
    """A file's path from here where it lies below, else the whole one."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def put(cfg: ConfigDict, key: str, value: Any) -> None:
    """Set a key of a config by its dotted name, unless the value is None."""
    if value is None:
        return
    *groups, name = key.split(".")
    for group in groups:
        cfg = cfg[group]
    cfg[name] = value


def requests_of(args) -> list[prompts.Request]:
    """The samples that the command line asks for. UserError where it says none, or contradicts itself."""
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


def _text_server(args) -> TextServer:
    if args.refine is None and (args.refine_model or args.refine_host):
        raise UserError("--refine-model and --refine-host go with --refine, the URL of a text server", status=2)
    try:
        return TextServer(args.refine, args.refine_model or TextServer.model, tuple(args.refine_host or ()))
    except UserError as error:
        advice = str(error).replace("name it under hosts", "give --refine-host")
        raise UserError(f"--refine: {advice}", status=2) from error


def _flickering(requests: list[prompts.Request], keys: SamplingKeys) -> list[prompts.Request]:
    """The requests, those of VBench's suite of static scenes with as many samples as it wants."""
    samples = keys.output.flicker_samples
    if samples is None:
        return requests
    if not any(r.suite == FLICKERING for r in requests):
        raise UserError(
            f"--flicker-samples is for the suite {FLICKERING}, of which no prompt is: give --prompts with "
            f"{FLICKERING}.txt, or a column suite",
            status=2,
        )
    return [replace(r, samples=samples) if r.suite == FLICKERING else r for r in requests]


def _sources(keys: SamplingKeys) -> dict[str, Any]:
    """The files that the models come from."""
    files: dict[str, Any] = {"workdir": keys.workdir}
    if not keys.workdir:
        files = {"video": keys.model.weights, "autoencoder": keys.autoencoder.weights}
    if keys.sample["mode"] == T2I2V:
        files |= {"image": keys.image.model.weights, "image autoencoder": keys.image.autoencoder.weights}
    named = {name: str(Path(file).resolve()) for name, file in files.items() if file}
    rows = [{"path": str(Path(path).resolve()), "strength": strength} for path, strength in keys.model.added]
    return {**named, "adapters": rows} if rows else named
