"""`osjax finetune CLIPS`: from a folder of clips to a fine-tuned model, in one command that goes on where it was.

It puts captions together, asks a server for those that are not there, measures the clips, builds the data set in the
workdir, and trains as `osjax train` does, which encodes the clips once, to disk. Of curation's filters there are none:
what cannot train is dropped, and each reason says what lets it in.
"""

from pathlib import Path

import jax
from ml_collections import ConfigDict

from osjax import lock
from osjax.cli import train
from osjax.curation import folder
from osjax.curation.caption import Captioning
from osjax.curation.captions import Words
from osjax.errors import UserError
from osjax.parts import released
from osjax.plain_line import plain

# What is fine-tuned by default, by the names of `osjax convert --model`.
MODELS = {
    "open_sora_v2": "configs/finetune/lora_t2v_256.py",
    "high_compression": "configs/finetune/lora_deep_compression.py",
}
SHOWN = 20  # lines of one kind


def add_options(parser) -> None:
    parser.add_argument("clips", metavar="CLIPS", help="a folder of clips and pictures with captions, or a table")
    parser.add_argument(
        "--model", choices=sorted(MODELS), default="open_sora_v2", help="whose adapters are trained, without --config"
    )
    parser.add_argument("--weights", metavar="FOLDER", help="of the released files, instead of ckpts")
    parser.add_argument(
        "--captioner", metavar="URL", help="OpenAI-compatible server, ending in /v1, that captions clips without one"
    )
    parser.add_argument("--captioner-model", metavar="NAME", help="by which the server knows its model")
    parser.add_argument("--caption", default="", metavar="TEXT", help="of clips that have none")
    parser.add_argument("--prefix", default="", metavar="TEXT", help="ahead of every caption")
    parser.add_argument("--trigger", default="", metavar="WORD", help="put first in captions that do not have it")
    parser.add_argument("--workdir", help="folder of the run, instead of config.workdir")
    parser.add_argument("--dry-run", action="store_true", help="build the data set, check the run; train nothing")
    parser.add_argument("--profile", type=int, default=0, metavar="STEPS", help="write an XProf trace of so many steps")


def default_config(args) -> str:
    """The shipped config that is read where no --config is given. args: the namespace of the verb's flags."""
    return MODELS[args.model]


def run(cfg: ConfigDict, args) -> None:
    if "stages" in cfg or cfg.get("kind") != "diffusion":
        raise UserError("osjax finetune trains one stage of the video model: give one of configs/finetune", status=2)
    if args.weights:
        released.move(cfg, args.weights)
    if args.workdir:
        cfg.workdir = args.workdir
    if jax.process_count() > 1:
        raise UserError("osjax finetune runs on one host: build the data set, then osjax train --multihost", status=2)
    place, words, captioner = Path(cfg.workdir) / "clips", Words(args.caption, args.prefix, args.trigger), _server(args)
    with lock.held(place, "osjax finetune"):
        built = folder.build(Path(args.clips), place, words, captioner)
    print(f"{args.clips}: {built.kept} clips in {built.path}")
    _tell("left out", built.dropped)
    _tell("not taken, as neither clip nor picture nor caption", built.others)
    cfg.data.source = built.path
    train.start(cfg, args)


def _server(args) -> Captioning | None:
    """Who captions clips that have no caption. UserError, status 2, for half of what it takes, and for no URL."""
    if not args.captioner:
        if args.captioner_model:
            raise UserError("--captioner-model goes with --captioner, the URL of a server", status=2)
        return None
    if not args.captioner_model:
        raise UserError("--captioner needs --captioner-model, the name that the server knows its model by", status=2)
    if args.caption:
        raise UserError("--caption and --captioner are both for clips without a caption: give one", status=2)
    try:
        return Captioning(args.captioner, args.captioner_model)
    except ValueError as error:
        raise UserError(f"--captioner: {error}", status=2) from error


def _tell(what: str, lines: tuple[str, ...]) -> None:
    if lines:
        more = [f"... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
        print("\n".join([f"{what}, {len(lines)}:", *(f"  {plain(line)}" for line in (*lines[:SHOWN], *more))]))
