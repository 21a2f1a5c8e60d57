"""`osjax demo`: a small curriculum on procedural clips, from MP4 files to a report; an interrupted one goes on."""

import time

from ml_collections import ConfigDict

from osjax.bench import demo
from osjax.errors import UserError
from osjax.parallel import compiled, host
from osjax.parts import run as runs
from osjax.parts.demo import DemoReport
from osjax.parts.groups import to_dataclass

QUICK = "configs/demo_quick.py"


def add_options(parser) -> None:
    parser.add_argument("--workdir", help="folder of the run, instead of config.workdir")
    parser.add_argument("--quick", action="store_true", help=f"a first look, in minutes: {QUICK} is the config")


def config_of(args) -> str | None:
    """The shipped config that the options ask for; None: the verb's."""
    return QUICK if args.quick else None


def run(cfg: ConfigDict, args) -> None:
    started = time.monotonic()
    host.keep_freed_memory()
    if args.workdir:
        cfg.workdir = args.workdir
    checked = runs.of_config(cfg, ignored=("report",))
    if "report" not in cfg:
        raise UserError("a demo shows what it learned on its own clips: use configs/demo.py, or run osjax train")
    compiled.keep(checked.keys.compilation_cache)
    demo.run(checked, to_dataclass(DemoReport, cfg.report, "report"), started)
