"""`osjax encode`: the features that training with `data.cached` reads, ahead of it and on any number of hosts.

It takes the config of the training run and makes, for each of its stages of the video model, what that run's clips
become: latents of clips and of condition frames and, with `data.cached_text`, T5 and CLIP features. Killed, the same
command goes on.
"""

import jax
from ml_collections import ConfigDict

from osjax.cli import hosts
from osjax.errors import UserError
from osjax.parallel import compiled
from osjax.parts import run as runs
from osjax.stages.curriculum import Curriculum


def add_options(parser) -> None:
    parser.add_argument("--stage", action="append", help="only this stage; may be given again (default: all)")
    parser.add_argument("--workdir", help="folder of the training run, instead of config.workdir")
    hosts.add_options(parser)


def run(cfg: ConfigDict, args) -> None:
    if args.workdir:
        cfg.workdir = args.workdir
    hosts.join(args)
    for stage in cfg.stages.values() if "stages" in cfg else [cfg]:
        if stage.get("kind") == "diffusion":
            stage.data.cached = True  # features are for training that reads them, whatever this config says yet
    checked = runs.of_config(cfg, ignored=("report",))
    compiled.keep(checked.keys.compilation_cache)
    wanted = checked.diffusion(args.stage or ())
    if not wanted:
        raise UserError("nothing to encode: this config has no stage of the video model", status=2)
    curriculum = Curriculum(checked)
    curriculum.check(wanted)
    with curriculum.alone("osjax encode"):
        for name in wanted:
            curriculum.tell_clips(wanted[name])
            made = curriculum.stages[name].encode(curriculum.own)
            if jax.process_index() == 0:
                for records in made.records.values():
                    print(f"{name}: {len(records)} clips in {records.folder}")
