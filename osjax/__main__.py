"""`osjax VERB` and `python -m osjax VERB`.

A verb is a module of osjax.cli with two functions, explained here for all of them:

    add_options(parser)  declares the verb's own flags on an `argparse.ArgumentParser`.
    run(cfg, args)       does the work. cfg: the `ConfigDict` of --config with its overrides, or None for a verb that
                         needs none. args: the namespace of those flags. UserError for what a user can mend.

One without a default config may have a third, `default_config(args)`, which names the shipped one by its flags.

The module is imported only when its verb is asked for, so `osjax --help` imports neither jax nor any model.
Exit status: 0 on success, 2 on bad usage, 1 on failure; an error is one readable line, `--traceback` shows the rest.
"""

import argparse
import atexit
import errno
import gc
import logging
import os
import sys
import threading
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from types import ModuleType

import osjax
from osjax import atomic, plain_line
from osjax.cli import huge_pages, local_paths
from osjax.errors import UserError


@dataclass(frozen=True)
class Verb:
    """One line of the table.

    module:         where `add_options` and `run` live.
    summary:        its line in --help.
    default_config: the shipped config used when no --config is given, such as "configs/demo.py".
    needs_config:   whether a verb without a default must be given --config.
    """

    module: str
    summary: str
    default_config: str | None = None
    needs_config: bool = True


VERBS = {
    "demo": Verb("osjax.cli.demo", "the whole curriculum on small procedural clips, on a CPU", "configs/demo.py"),
    "train": Verb("osjax.cli.train", "a stage or a whole curriculum, resumed where it stands"),
    "finetune": Verb("osjax.cli.finetune", "from a folder of clips to a fine-tuned model", needs_config=False),
    "encode": Verb("osjax.cli.encode", "latents and text features of clips, for training with data.cached"),
    "verify": Verb("osjax.cli.verify", "whether all that a run has kept is as it was written", needs_config=False),
    "report": Verb("osjax.cli.report", "a run's losses, rates and samples as one HTML page", needs_config=False),
    "sample": Verb("osjax.cli.sample", "prompts, images and clips to videos", "configs/sample/demo.py"),
    "calibrate": Verb(
        "osjax.cli.calibrate", "what caches need to know of a model, measured once", "configs/sample/demo.py"
    ),
    "serve": Verb(
        "osjax.cli.serve", "the videos API of OpenAI's clients, and a studio in the browser", "configs/serve.py"
    ),
    "eval": Verb("osjax.cli.eval", "how well an autoencoder reproduces videos", "configs/eval/recon.py"),
    "convert": Verb("osjax.cli.convert", "weight files to osjax checkpoints, and back", "configs/models.py"),
    "plan": Verb("osjax.cli.plan", "what a training run needs and costs on accelerators that are not here"),
    "bench": Verb("osjax.cli.bench", "how fast this machine runs each part of the system", "configs/bench/demo.py"),
    "data": Verb("osjax.cli.data", "from raw videos to clips, captions and data sets", "configs/curation/report.py"),
}


# What the machine may be at fault with, and how it is said of a file.
MACHINE = {
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "cannot be written or read"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "cannot be opened, as too many are open"),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR), "cannot be opened"),
    errno.EIO: "cannot be read",
}
LONGEST = 600  # characters of an error that is no user's: compilers' run to pages
NAME = 200  # characters of a file that such a line names
COMPUTING = (
    "demo",
    "train",
    "finetune",
    "encode",
    "verify",
    "sample",
    "calibrate",
    "serve",
    "eval",
    "bench",
)  # they run models, so pages of memory matter


class Parser(argparse.ArgumentParser):
    """argparse with our exit path (UserError, status 2) and without abbreviated flags."""

    def __init__(self, **kwargs):
        super().__init__(**{"allow_abbrev": False, **kwargs})

    def error(self, message):
        raise UserError(f"{message}; see {self.prog} --help", status=2)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status. argv: None for that of this process, which may start again."""
    if argv is not None:
        return _run(list(argv))
    if sys.argv[1:2] and sys.argv[1] in COMPUTING:
        huge_pages.ask()
    gc.set_threshold(100_000)  # tracing makes objects that stay: looking through every 700 takes a tenth of a start
    status = _run(sys.argv[1:])
    if any(type(thread).__name__ == "_SignalingThread" for thread in threading.enumerate()):
        # Orbax's, of a save that failed: they wait five minutes for a folder that nobody makes, and Python for them.
        if not status:
            atexit._run_exitfuncs()  # what Python would have done after them, such as leaving jax.distributed
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def _run(argv: list[str]) -> int:
    show_traceback = "--traceback" in argv
    argv = [arg for arg in argv if arg != "--traceback"]
    try:
        _dispatch(argv)
        sys.stdout.flush()
    except SystemExit as stop:  # argparse, after it printed a verb's help
        return stop.code if isinstance(stop.code, int) else 0
    except UserError as error:
        return _report([f"osjax: {line}" for line in error.lines], error.status, show_traceback)
    except KeyboardInterrupt:
        return _report(["osjax: interrupted"], 1, show_traceback)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough; keep Python from flushing into it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if atomic.is_full_disk(error):
            where = f" ({error.filename})" if isinstance(error, OSError) and error.filename else ""
            told = f"osjax: no space is left on the disk{where}: make room and run it again"
            return _report([told], 1, show_traceback)
        if isinstance(error, OSError) and error.filename and error.errno in MACHINE:
            name, why = str(error.filename)[:NAME], f"{MACHINE[error.errno]} ({error.strerror})"
            told = f"osjax: {name} {why}: mend it and run it again"
            return _report([told], 1, show_traceback)
        message = f"osjax: {type(error).__name__}: {error}" if str(error) else f"osjax: {type(error).__name__}"
        message = " ".join(message.split())
        if len(message) > LONGEST:
            message = message[:LONGEST] + " ..."
        return _report([message], 1, show_traceback, "; run again with --traceback to see where")
    return 0


def _report(messages: Sequence[str], status: int, show_traceback: bool, hint: str = "") -> int:
    if show_traceback:
        traceback.print_exc()
    for message in messages:
        print(plain_line.plain(" ".join(message.split())) + ("" if show_traceback else hint), file=sys.stderr)
    return status


def _dispatch(argv: list[str]) -> None:
    if not argv or argv[0] in ("-h", "--help"):
        print(_help())
        if not argv:
            raise UserError("no verb given; choose one of " + ", ".join(VERBS), status=2)
        return
    if argv[0] == "--version":
        print(f"osjax {osjax.__version__}")
        return
    name, rest = argv[0], argv[1:]
    if name not in VERBS:
        kind = "option" if name.startswith("-") else "verb"
        known = ("--help", "--version", "--traceback") if kind == "option" else VERBS
        raise UserError(f"unknown {kind} {name}{_suggest(name, known)}", status=2)
    verb = VERBS[name]
    handler = logging.StreamHandler()
    handler.setFormatter(plain_line.Formatter("%(levelname)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    module = import_module(verb.module)
    config_path, overrides, rest = split_config_flags(rest)
    args = _parse(name, module, rest)
    labels = _labels(_parser(name, module))
    local_paths.check(name, {"config": config_path, **vars(args)}, labels)
    if config_path is None and hasattr(module, "default_config"):
        config_path = module.default_config(args)
    cfg = _load_config(name, _with_options(verb, module, args, config_path), config_path, overrides)
    local_paths.check_config(name, cfg)
    module.run(cfg, args)


def _help() -> str:
    width = max(map(len, VERBS))
    lines = ["usage: osjax VERB [--config=FILE.py] [--config.KEY=VALUE ...] [options]", "", "verbs:"]
    lines += [f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items()]
    lines += [
        "",
        "options:",
        "  --config=FILE.py    a Python file with get_config(); `osjax VERB --help` says which one is the default",
        "  --config.KEY=VALUE  override one key of the config, such as --config.lr=1e-5",
        "  --traceback         show the full traceback of an error",
        "  --version           print the version",
        "  --help              this page; `osjax VERB --help` lists the options of a verb",
    ]
    return "\n".join(lines)


def split_config_flags(argv: Sequence[str]) -> tuple[str | None, list[tuple[str, str]], list[str]]:
    """Take `--config=FILE`, `--config FILE`, `--config.key=value` and `--config.key value` out of a command line.

    Returns the file (or None), the (dotted key, text) overrides in order, and the arguments that remain.
    """
    path, overrides, rest = None, [], []
    arguments = iter(argv)
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if flag != "--config" and not flag.startswith("--config."):
            rest.append(argument)
            continue
        if not equals:
            value = next(arguments, "")
            # A flag is no value, but a negative number is.
            if not value or value.startswith("--"):
                raise UserError(f"{flag} needs a value: {flag}=...", status=2)
        if flag == "--config":
            path = value
        else:
            overrides.append((flag.removeprefix("--config."), value))
    return path, overrides, rest


def _parser(name: str, module: ModuleType) -> Parser:
    verb = VERBS[name]
    if verb.default_config:
        config = f"--config=FILE.py (default {verb.default_config})"
    else:
        config = "--config=FILE.py (required)" if verb.needs_config else "--config=FILE.py (where a config is read)"
    epilog = f"Config: {config}, with overrides --config.KEY=VALUE. --traceback shows the full traceback of an error."
    parser = Parser(prog=f"osjax {name}", description=verb.summary, epilog=epilog)
    module.add_options(parser)
    return parser


def options_of(name: str) -> set[str]:
    """Every flag that a verb accepts, those of its sub-commands and the common ones included."""
    return {"--config", "--traceback"} | _flags(_parser(name, import_module(VERBS[name].module)))


def _flags(parser: argparse.ArgumentParser) -> set[str]:
    flags: set[str] = set()
    for action in parser._actions:  # argparse has no public way to list them
        flags.update(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                flags |= _flags(sub)
    return flags


def _labels(parser: argparse.ArgumentParser) -> dict[str, str]:
    """How a verb's help calls each of its arguments, by the name that argparse gives it."""
    labels: dict[str, str] = {}
    for action in parser._actions:
        labels[action.dest] = action.option_strings[0] if action.option_strings else action.metavar or action.dest
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                labels |= _labels(sub)
    return labels


def _parse(name: str, module: ModuleType, argv: list[str]) -> argparse.Namespace:
    parser = _parser(name, module)
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        kind = "option" if unknown[0].startswith("-") else "argument"
        flag = unknown[0].partition("=")[0]
        raise UserError(f"osjax {name}: unknown {kind} {flag}{_suggest(flag, options_of(name))}", status=2)
    return args


def _with_options(verb: Verb, module: ModuleType, args: argparse.Namespace, config_path: str | None) -> Verb:
    """The verb with the default config that its options ask for, where its module has a `config_of(args)`."""
    asked = module.config_of(args) if hasattr(module, "config_of") else None
    if asked and config_path:
        raise UserError(f"--config={config_path} and an option that stands for {asked}: give one of them", status=2)
    return replace(verb, default_config=asked) if asked else verb


def _load_config(name: str, verb: Verb, path: str | None, overrides: list[tuple[str, str]]):
    from osjax.parts import config

    if path is None and verb.default_config:
        path = config.shipped(verb.default_config)
    if path is not None:
        return config.load(path, overrides)
    if verb.needs_config or overrides:
        raise UserError(f"osjax {name} needs --config=FILE.py", status=2)
    return None


def _suggest(word: str, known) -> str:
    from osjax.parts.config import nearest

    close = nearest(word, known)
    return f"; did you mean {close}?" if close else f"; choose one of {', '.join(sorted(known))}"


if __name__ == "__main__":
    sys.exit(main())
