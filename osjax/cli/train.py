"""`osjax train`: one stage or a whole curriculum, from wherever its workdir stands.

Exit status: 0 when the last step is saved; 2 for a config that cannot run, which no restart mends; 75 where the same
command should be run again: after SIGTERM, a preemption or a hang.
"""

import contextlib
import os
from pathlib import Path

import jax
from ml_collections import ConfigDict

from osjax.cli import hosts
from osjax.errors import Gathered, Problems, UserError
from osjax.parallel import compiled, host
from osjax.parts import run as runs
from osjax.parts.demo import DemoReport
from osjax.parts.groups import refuse, to_dataclass
from osjax.parts.run import Run
from osjax.planning import fits
from osjax.stages.curriculum import Curriculum, summary
from osjax.stages.stage import Options, count_parameters
from osjax.training import dashboards, goodput
from osjax.training.dashboards import Dashboard, TensorBoard, WandB
from osjax.training.loop import Interrupted


def add_options(parser) -> None:
    parser.add_argument("--workdir", help="folder of the run, instead of config.workdir")
    parser.add_argument("--dry-run", action="store_true", help="check config, data, mesh and weights; train nothing")
    parser.add_argument("--profile", type=int, default=0, metavar="STEPS", help="write an XProf trace of so many steps")
    hosts.add_options(parser)


def run(cfg: ConfigDict, args) -> None:
    if args.workdir:
        cfg.workdir = args.workdir
    hosts.join(args)
    start(cfg, args)


def start(cfg: ConfigDict, args) -> None:
    """Check a run and train it. cfg: of the run. args: flags `dry_run` and `profile`."""
    host.keep_freed_memory()
    if "report" in cfg:
        report = to_dataclass(DemoReport, cfg.report, "report")
        refuse(report, "report", (), "osjax demo alone writes that report")
    checked = _checked(cfg)
    compiled.keep(checked.keys.compilation_cache)
    curriculum, problems = Curriculum(checked), Gathered()
    with problems:
        curriculum.check()
    with problems:
        fits.check(checked)
    with problems:
        dashboards.check(checked.keys.tensorboard, checked.keys.wandb)
    problems.end()
    if args.dry_run:
        _print_plan(checked, curriculum)
        return
    shown = _dashboards(checked)
    try:
        curriculum.train(Options(args.profile, shown, goodput.process_began()))
    except Interrupted as stopped:
        raise UserError(str(stopped), status=os.EX_TEMPFAIL) from stopped
    finally:
        for dashboard in shown:
            dashboard.close()
    if jax.process_index() == 0:
        print(f"finished: {', '.join(checked.stages)}; see {checked.place.workdir}")


def _checked(cfg: ConfigDict) -> Run:
    """The run of a config. UserError, beside what is wrong with its keys, for the weights that are not there."""
    try:
        return runs.of_config(cfg, ignored=("report",))
    except UserError as error:
        lost: list[str] = []
        with contextlib.suppress(UserError):  # keys so wrong that they name no stages
            lost = [line for line in runs.lost_files(cfg, ("report",)) if line not in error.lines]
        if not lost:
            raise
        raise Problems([*error.lines, *lost], status=error.status) from error


def _dashboards(checked: Run) -> tuple[Dashboard, ...]:
    if jax.process_index():
        return ()
    shown: list[Dashboard] = []
    workdir = Path(checked.keys.workdir)
    if checked.keys.tensorboard:
        shown.append(TensorBoard(workdir / "tensorboard"))
    if checked.keys.wandb:
        shown.append(WandB(checked.keys.wandb, workdir, dict(checked.saved)))
    return tuple(shown)


def _print_plan(checked: Run, curriculum: Curriculum) -> None:
    needs = fits.of_run(checked)
    for line, (name, stage) in zip(summary(checked), checked.stages.items(), strict=True):
        print(line)
        print(f"{name}: mesh {dict(stage.mesh.shape)}, {count_parameters(stage.model):,} parameters")
        if name in needs:
            print(f"{name}: {needs[name].says}")
        for told in curriculum.clips(stage):
            print(f"{name}: {told}")
