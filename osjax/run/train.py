"""`osjax train`: one stage or a whole curriculum, from wherever its workdir stands.

Exit status: 0 when the last step is saved; 2 for a config that cannot run, which no restart mends; 75 where the same
command should be run again: after SIGTERM, a preemption or a hang.
"""

import os
from pathlib import Path

import jax
from ml_collections import ConfigDict

from osjax.errors import UserError
from osjax.parallel import host
from osjax.parallel import mesh as device_mesh
from osjax.run import compiled
from osjax.run.curriculum import Curriculum, summary
from osjax.run.stage import Options, plain
from osjax.training.dashboards import Dashboard, TensorBoard, WandB
from osjax.training.loop import Interrupted


def add_options(parser) -> None:
    parser.add_argument("--workdir", help="folder of the run, instead of config.workdir")
    parser.add_argument("--dry-run", action="store_true", help="check config, data, mesh and weights; train nothing")
    parser.add_argument("--profile", type=int, default=0, metavar="STEPS", help="write an XProf trace of so many steps")
    add_host_options(parser)


def add_host_options(parser) -> None:
    """Those of every verb that runs on several hosts; see `join`."""
    parser.add_argument("--multihost", action="store_true", help="join the processes that the cluster has started")
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="process 0, where the cluster cannot be asked")
    parser.add_argument("--processes", type=int, metavar="N", help="how many there are, with --coordinator")
    parser.add_argument("--process", type=int, metavar="I", help="which one this is, with --coordinator")


def run(cfg: ConfigDict, args) -> None:
    if args.workdir:
        cfg.workdir = args.workdir
    join(args)
    host.keep_freed_memory()
    compiled.keep(cfg.compilation_cache)
    curriculum = Curriculum(cfg)
    if args.dry_run:
        _print_plan(curriculum)
        return
    shown = _dashboards(cfg)
    try:
        curriculum.train(Options(args.profile, shown))
    except Interrupted as stopped:
        raise UserError(str(stopped), status=os.EX_TEMPFAIL) from stopped
    finally:
        for dashboard in shown:
            dashboard.close()
    if jax.process_index() == 0:
        print(f"finished: {', '.join(curriculum.stages)}; see {curriculum.place.workdir}")


def _dashboards(cfg: ConfigDict) -> tuple[Dashboard, ...]:
    if jax.process_index():
        return ()
    found: list[Dashboard] = []
    if cfg.tensorboard:
        found.append(TensorBoard(Path(cfg.workdir) / "tensorboard"))
    if cfg.wandb:
        found.append(WandB(cfg.wandb, Path(cfg.workdir), plain(cfg)))
    return tuple(found)


def join(args) -> None:
    """Join the other processes, where the options say so."""
    given = (args.coordinator, args.processes, args.process)
    if any(x is not None for x in given) and None in given:
        raise UserError("give --coordinator, --processes and --process together", status=2)
    if args.multihost or args.coordinator:
        device_mesh.initialize(*given)


def _print_plan(curriculum: Curriculum) -> None:
    curriculum.check_inputs()
    for line in summary(curriculum.configs):
        print(line)
    for name, made in curriculum.stages.items():
        print(f"{name}: mesh {dict(made.mesh.shape)}, {made.parameters():,} parameters")
