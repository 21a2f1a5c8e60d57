"""`osjax serve`: the videos API that OpenAI's clients speak, and a studio in the browser."""

import re
from dataclasses import replace
from pathlib import Path

from ml_collections import ConfigDict

from osjax import lock
from osjax.curation.isolate import need
from osjax.errors import UserError, usage
from osjax.parts import config, sampling, video_model
from osjax.parts.groups import refuse, to_dataclass
from osjax.parts.sampling import OutputKeys, SamplingKeys
from osjax.serve.auth import Keys
from osjax.serve.options import ServerOptions

NAME = re.compile(r"[\w.:+-]{1,100}")
LIBRARIES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
READ = ("crf",)  # of the group `output` of a model


def add_options(parser) -> None:
    parser.add_argument("--workdir", help="of a finished run, whose model is served alone, by the folder's name")
    parser.add_argument(
        "--model",
        action="append",
        metavar="NAME=PLACE",
        help="a model to serve by this name: a sampling config (.py), or a run's workdir; may be given several times",
    )
    parser.add_argument(
        "--lora", action="append", metavar="NAME=PATH", help="adapters that clients may ask for (config.loras)"
    )
    parser.add_argument(
        "--mesh", action="store_true", help="a copy of each model on every device (config.models.NAME.mesh.data=-1)"
    )
    parser.add_argument("--host", help="address to listen at; any but loopback asks for keys (config.host)")
    parser.add_argument("--port", type=int, help="0 for a free one (config.port)")
    parser.add_argument("--folder", help="of the queue, the videos and the keys (config.folder)")
    parser.add_argument("--warm", metavar="SIZES", help="resolutions to compile ahead: 256px,768px (config.warm)")
    parser.add_argument(
        "--require-key", action="store_true", default=None, help="on loopback, too (config.require_key)"
    )
    parser.add_argument("--make-key", metavar="NAME", help="make a key for a client, print it this once, and end")
    parser.add_argument("--key-queued", type=int, metavar="N", help="with --make-key: videos that it may have waiting")
    parser.add_argument("--key-priority", type=int, metavar="N", help="with --make-key: the highest it may ask for (0)")
    parser.add_argument("--revoke-key", metavar="NAME", help="forget the key of a client, and end")


def run(cfg: ConfigDict, args) -> None:
    for name in ("host", "port", "folder", "require_key"):
        if (value := getattr(args, name)) is not None:
            cfg[name] = value
    if args.warm is not None:
        cfg.warm = tuple(size.strip() for size in args.warm.split(",") if size.strip())
    if _keys(_options(cfg), args):
        return
    _name_models(cfg, args)
    _name_loras(cfg, args)
    if args.mesh:
        for one in cfg.models.values():
            one.mesh.data = -1
    options, models = of_config(cfg)
    loras = loras_of(cfg)
    for library in LIBRARIES:
        need(library, "serve")
    if options.needs_key and not (Path(options.folder) / "keys.json").is_file():
        asked = f"osjax serve --folder={options.folder} --make-key=NAME"
        raise UserError(f"{options.host} is reached by others, so clients need keys: {asked}", status=2)
    _prepare()
    from osjax.serve import app

    with lock.held(options.folder, "osjax serve"):
        app.run(options, models, loras)


def _keys(options: ServerOptions, args) -> bool:
    """Whether the command was about keys, which it then has done."""
    keys = Keys(Path(options.folder))
    if args.make_key is None and (args.key_queued is not None or args.key_priority is not None):
        raise UserError("--key-queued and --key-priority go with --make-key", status=2)
    if args.revoke_key is not None:
        keys.revoke(args.revoke_key)
    if args.make_key is not None:
        print(keys.make(args.make_key, args.key_queued, args.key_priority or 0))
    return args.make_key is not None or args.revoke_key is not None


@usage()
def of_config(cfg: ConfigDict) -> tuple[ServerOptions, dict[str, SamplingKeys]]:
    """The checked options of a server, and the keys of its models by name. UserError for what cannot be served."""
    if not cfg.models:
        raise UserError("no model to serve: give --workdir, --model or config.models")
    models = {}
    for name, one in cfg.models.items():
        if not NAME.fullmatch(name):
            raise UserError(f"a model is named {name[:80]!r}: use letters, digits and . : + -")
        keys = sampling.of_config(one)
        refuse(keys.output, f"models.{name}.output", READ, "a server has its own folder")
        models[name] = replace(keys, output=OutputKeys(crf=keys.output.crf))
    return _options(cfg), models


@usage()
def loras_of(cfg: ConfigDict) -> dict[str, tuple[str, float]]:
    """The adapters of a server by name, as (path, strength). UserError for what is not there."""
    loras = {}
    for name, one in cfg.get("loras", {}).items():
        if not NAME.fullmatch(name):
            raise UserError(f"adapters are named {name[:80]!r}: use letters, digits and . : + -")
        row = (one, 1.0) if isinstance(one, str) else tuple(one) if isinstance(one, tuple | list) else ()
        if len(row) != 2 or not isinstance(row[0], str) or not isinstance(row[1], int | float):
            raise UserError(f"config key loras.{name} is {one!r}: give a path, or (path, strength)")
        video_model.require(row[0], f"loras.{name}", "LoRA: a .safetensors, a folder of peft, or a run")
        loras[name] = (row[0], float(row[1]))
    return loras


def _options(cfg: ConfigDict) -> ServerOptions:
    own = {key: value for key, value in cfg.items() if key not in ("models", "loras")}
    return to_dataclass(ServerOptions, ConfigDict(own), "")


@usage()
def _name_loras(cfg: ConfigDict, args) -> None:
    """Put the adapters that the command line names into the config."""
    pairs = [text.partition("=")[::2] for text in args.lora or ()]
    if wrong := next((name for name, place in pairs if not name or not place), None):
        raise UserError(f"--lora is {wrong}: give NAME=PATH")
    if len({name for name, _ in pairs}) < len(pairs):
        raise UserError("two --lora have one name: give each its own")
    if pairs:
        with cfg.unlocked():
            cfg.loras = ConfigDict(dict(pairs))


@usage()
def _name_models(cfg: ConfigDict, args) -> None:
    """Put the models that the command line names into the config."""
    if args.workdir and args.model:
        raise UserError("--workdir serves one model, --model names each: give one of them")
    if args.workdir:
        with cfg.unlocked():
            cfg.models = ConfigDict({Path(args.workdir).absolute().name: _of_workdir(args.workdir)})
    elif args.model:
        pairs = [text.partition("=")[::2] for text in args.model]
        if wrong := next((text for text, (_, place) in zip(args.model, pairs, strict=True) if not place), None):
            raise UserError(f"--model is {wrong}: give NAME=CONFIG.py or NAME=WORKDIR")
        configs = {name: config.load(p) if p.endswith(".py") else _of_workdir(p) for name, p in pairs}
        if len(configs) < len(pairs):
            raise UserError("two --model have one name: give each its own")
        with cfg.unlocked():
            cfg.models = ConfigDict(configs)


def _of_workdir(folder: str) -> ConfigDict:
    cfg = sampling.keys()
    cfg.workdir = folder
    return cfg


def _prepare() -> None:
    """This process computes nothing: devices are for the one that runs the models, which is forked from a third."""
    import multiprocessing

    import jax

    jax.config.update("jax_platforms", "cpu")
    multiprocessing.get_context("forkserver").set_forkserver_preload(["osjax.serve.worker", "osjax.serve.uploads"])
