"""`osjax verify RUN`: whether all that a run has kept is as it was written, and whether these devices compute rightly.

Every checkpoint against its seal, data sets and features against their fingerprints, every line of metrics.jsonl, and
the step after the newest checkpoint of each stage, done twice and compared bit by bit. Nothing is changed. Exit status:
0 where all is well, 1 where anything is not, a line each.
"""

from pathlib import Path

from osjax.errors import Problems, UserError
from osjax.parallel import compiled
from osjax.parts import run as runs
from osjax.stages import verify
from osjax.stages.curriculum import Curriculum


def add_options(parser) -> None:
    parser.add_argument("workdir", help="folder of a run")
    parser.add_argument("--no-replay", action="store_true", help="read only; do no step")


def run(cfg, args) -> None:
    workdir = Path(args.workdir)
    if not workdir.is_dir():
        raise UserError(f"{workdir} is no folder: give the workdir of a run", status=2)
    cfg = cfg or runs.config_of(workdir)
    cfg.workdir = args.workdir
    checked = runs.of_config(cfg, ignored=("report",))
    compiled.keep(checked.keys.compilation_cache)
    curriculum, wrong = Curriculum(checked), []
    with curriculum.alone("osjax verify"):
        for told in verify.all_of(checked, curriculum, replay=not args.no_replay):
            if told.wrong:
                wrong.append(told.text)
            else:
                print(told.text, flush=True)
    if wrong:
        raise Problems(wrong, status=1)
