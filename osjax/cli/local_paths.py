"""URLs where only a path on this machine works: refused before anything is made.

Whatever a verb is told, on its command line or in its config, is a path or has no "://" at its front, but for what is
listed here. So an option or a key that is new is held to it, too.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from osjax.errors import UserError
from osjax.parts import hub
from osjax.parts.place import LOCAL_WORKDIR

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# Options that hold texts, or the URL of a server, by their name in argparse.
TEXTS = frozenset(("prompt", "negative", "caption", "prefix", "trigger", "captioner"))
# Keys that hold texts or take URLs, by the end of their dotted name.
TEXT_KEYS = frozenset(("prompt", "prompts", "negative", "url", "wandb"))
URL_KEYS = {
    **dict.fromkeys(("train", "finetune", "encode", "demo", "plan"), ("checkpoints", "source", "held_out")),
    "bench": ("source", "held_out"),
}
# Verbs whose weights may be hf:// paths, and their options that name some.
HUB_VERBS = ("train", "finetune", "encode", "plan", "demo", "sample", "calibrate", "serve", "convert")
HUB_OPTIONS = {("finetune", "weights"), ("convert", "source"), ("convert", "out"), ("convert", "adapter")}
ADVICE = {
    "workdir": LOCAL_WORKDIR,
    "data": "name a path on this machine; only the data set that `osjax data build` writes may be a URL",
}
ELSE = "name a path on this machine, such as a copy or a mounted bucket"


def check(verb: str, options: Mapping[str, Any], labels: Mapping[str, str]) -> None:
    """UserError, status 2, that names the option of a verb which is given a URL but works on local paths.

    options: of the command line, by name. labels: how the help calls them.
    """
    for name, value in options.items():
        if name in TEXTS or (verb, options.get("step"), name) == ("data", "build", "out"):
            continue
        for _, given in _strings(value, name):
            for part in given.split(";"):  # --ref holds several
                if (verb, name) in HUB_OPTIONS and hub.is_hub(part):
                    continue
                _refuse_url(verb, labels.get(name, f"--{name}"), name, part)


def check_config(verb: str, cfg: Any) -> None:
    """UserError, status 2, that names the key of a verb's config `cfg` which is a URL but is taken for a local path."""
    for key, value in _strings(cfg, ""):
        last = key.rsplit(".", 1)[-1]
        if verb in HUB_VERBS and last in hub.KEYS and hub.is_hub(value):
            continue
        if last not in TEXT_KEYS and last not in URL_KEYS.get(verb, ()):
            _refuse_url(verb, f"config.{key}", last, value)


def _refuse_url(verb: str, label: str, name: str, value: str) -> None:
    if not _URL.match(value.strip()):
        return
    writes = verb in URL_KEYS and verb != "bench"
    advice = ADVICE["workdir"] if name == "workdir" and writes else ADVICE.get(verb, ELSE)
    raise UserError(f"{label} is {value.strip()}, a URL: {advice}", status=2)


def _strings(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """(dotted key, text) of every text in a value, in its groups and in its lists."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, (list, tuple, set, frozenset)):
        for one in value:
            yield from _strings(one, key)
    elif hasattr(value, "items"):
        for name, one in value.items():
            yield from _strings(one, f"{key}.{name}" if key else str(name))
