"""`osjax calibrate`: what caches and the measured schedule know of a model, measured once and kept by its weights."""

from ml_collections import ConfigDict

from osjax.cli import sample
from osjax.errors import UserError
from osjax.parallel import compiled
from osjax.parts import pipeline, sampling
from osjax.sampling.batch import check_references
from osjax.sampling.settings import T2I2V

STEPS = 50  # of runs that say no other number: enough for a curve, whatever is sampled later
FLAGS = ("mode", "resolution", "aspect-ratio", "height", "width", "frames", "steps", "guidance", "guidance-img")
FLAGS += ("negative", "motion-score", "seed", "workdir", "cache")


def add_options(parser) -> None:
    sample.add_requests(parser)
    for flag in FLAGS:
        key, kind, text = sample.FLAGS[flag]
        parser.add_argument(f"--{flag}", type=kind, help=f"{text} (config.{key})")


def run(cfg: ConfigDict, args) -> None:
    for flag in FLAGS:
        sample.put(cfg, sample.FLAGS[flag][0], getattr(args, flag.replace("-", "_")))
    if cfg.sample.steps is None:
        cfg.sample.steps = STEPS
    requests = sample.requests_of(args)
    keys = sampling.of_config(cfg)
    compiled.keep(keys.compilation_cache)
    pipe = pipeline.of_keys(keys)
    settings, calibration = pipe.settings, pipe.calibration
    assert calibration is not None  # those of configs have one
    if settings.mode == T2I2V:
        raise UserError("mode t2i2v samples as i2v_head does: calibrate that, with --ref", status=2)
    check_references(settings, requests)
    jobs = pipe.jobs(
        settings.changed(reuse="none", schedule="shifted"),
        [request.text for request in requests],
        [request.ref for request in requests] if settings.condition.references else None,
        [settings.negative if request.neg is None else request.neg for request in requests],
        [(settings.seed if request.seed is None else request.seed) + n for n, request in enumerate(requests)],
    )
    curve = pipe.observe(jobs, settings)
    calibration.write(settings.condition.name, curve)
    rows = zip(curve.times, curve.bend, *(one.residual for one in curve.branches.values()), strict=False)
    print("time   bend  change of what the blocks add since the call before, by branch")
    for number, (t, bend, *changes) in enumerate(rows):
        if number % max(len(curve.times) // 10, 1) == 0:
            print(f"{t:5.3f} {bend:6.2f}  {'  '.join(f'{change:6.1%}' for change in changes)}")
    print(f"{calibration.path}: mode {settings.condition.name}, the mean of {curve.samples} samples")
