"""`osjax report DIR`: the run in a workdir as one HTML page, while it trains or afterwards."""

from collections import defaultdict
from pathlib import Path

from osjax.errors import UserError
from osjax.pages import run as run_page
from osjax.training import goodput, metrics
from osjax.types import Json

STAGES = 100  # that a page shows


def add_options(parser) -> None:
    parser.add_argument("workdir", help="folder of a run, with metrics.jsonl")


def run(cfg, args) -> None:
    workdir = Path(args.workdir)
    by_stage: dict[str, list[Json]] = defaultdict(list)
    for line in metrics.read(workdir / "metrics.jsonl"):
        by_stage[line["stage"]].append(metrics.numbers(line))
    if not by_stage:
        raise UserError(f"{workdir} holds no metrics.jsonl with lines: give the workdir of a run")
    if len(by_stage) > STAGES:
        raise UserError(f"{workdir} has lines of {len(by_stage)} stages, {STAGES} at most are shown: is it a run's?")
    spent = goodput.rows(goodput.read(workdir / goodput.FILE).spent)
    print(f"see {run_page.write(workdir, by_stage, spent)}")
