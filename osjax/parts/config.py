"""Config files at the edge: load one and apply overrides strictly.

A config is a Python file with `get_config() -> ConfigDict`. Overrides may only name keys that exist, with values of the
type that the file gave them: a misspelt key is an error that names the nearest valid one, never a silent no-op.
How groups of keys become frozen dataclasses: groups.py.
"""

import ast
import difflib
import runpy
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from osjax.errors import UserError


def _built_in() -> Path:
    """The folder of the shipped configs, the package osjax.configs: inside a wheel's package, beside a clone's."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


BUILT_IN = _built_in()


def load(path: str | Path, overrides: Sequence[tuple[str, str]] | Mapping[str, Any] = ()) -> ConfigDict:
    """Run the config file at `path` and return its locked ConfigDict with `overrides` applied.

    overrides: (dotted key, text) pairs such as ("train.lr", "1e-5"); a mapping, whose values may be text or already
    of the right type, works too.
    Raises UserError (status 2) for a missing file, a file without `get_config`, an unknown key or a wrong type.
    """
    cfg = _execute(find(path))
    cfg.lock()
    pairs = overrides.items() if isinstance(overrides, Mapping) else overrides
    for key, value in pairs:
        _override(cfg, key, value)
    return cfg


def find(path: str | Path) -> Path:
    """The config file that `path` names: as given, or `configs/...` among the shipped ones when run from elsewhere."""
    path = Path(path)
    for candidate in (path, shipped(path)):
        if candidate.is_file():
            return candidate
    known = {_short(p): p for folder in (Path("configs"), BUILT_IN) for p in _config_files(folder)}
    by_stem = {Path(name).stem: name for name in known}
    close = nearest(str(path), known) or by_stem.get(nearest(path.stem, by_stem) or "")
    mend = f"; did you mean {close}?" if close else "; pass --config=FILE.py"
    raise UserError(f"config file {path} does not exist{mend}", status=2)


def shipped(path: str | Path) -> Path:
    """Where the config lies that is shipped under a name such as `configs/smoke.py`; it may not exist."""
    path = Path(path)
    return BUILT_IN / path.relative_to("configs") if path.parts[:1] == ("configs",) else BUILT_IN.parent / path


def _config_files(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.rglob("*.py")) if p.name != "__init__.py"] if folder.is_dir() else []


def _short(path: Path) -> str:
    return str("configs" / path.relative_to(BUILT_IN)) if path.is_absolute() else str(path)


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The closest of `words` to a misspelt `word`, or None if none is close."""
    return next(iter(difflib.get_close_matches(word, list(words), n=1)), None)


@contextmanager
def _neighbours(path: Path) -> Iterator[None]:
    """A config file may import what lies beside it, and packages of the folder that the command runs in.

    What it imported from there is forgotten afterwards: the next config may have other neighbours of the same names.
    """
    places, before = [str(path.resolve().parent), str(Path.cwd())], set(sys.modules)
    if path.resolve().is_relative_to(BUILT_IN):  # shipped ones import osjax.configs
        places = []
    saved = sys.path[:]
    # The neighbours come first, as for a script that Python runs; the current folder last, as it may hold anything.
    sys.path[:] = [*places[:1], *saved, *places[1:]]
    try:
        yield
    finally:
        sys.path[:] = saved
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None) or next(
                iter(getattr(sys.modules[name], "__path__", ())), None
            )
            if file is None or "site-packages" in file or name.split(".")[0] in ("osjax", *before):
                continue
            if any(Path(file).resolve().is_relative_to(place) for place in places):
                del sys.modules[name]


def _execute(path: Path) -> ConfigDict:
    try:
        with _neighbours(path):
            get_config = runpy.run_path(str(path)).get("get_config")
            cfg = get_config() if callable(get_config) else None
    except UserError:
        raise
    except Exception as error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) else next(reversed(lines), "?")
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"config file {path} failed at line {line}: {reason}", status=2) from error
    if not callable(get_config):
        raise UserError(f"config file {path} has no get_config(); define one that returns a ConfigDict", status=2)
    if not isinstance(cfg, ConfigDict):
        raise UserError(
            f"get_config() in {path} gave {type(cfg).__name__}; return an ml_collections.ConfigDict", status=2
        )
    return cfg


def dotted_keys(cfg: ConfigDict, prefix: str = "") -> list[str]:
    """Every key of a config in dotted form, groups included."""
    keys = []
    for name in cfg:
        keys.append(prefix + name)
        value = cfg[name]
        if isinstance(value, ConfigDict):
            keys += dotted_keys(value, f"{prefix}{name}.")
    return keys


def _override(cfg: ConfigDict, key: str, value: Any) -> None:
    *groups, name = key.split(".")
    node: Any = cfg
    for group in groups:
        node = node[group] if isinstance(node, ConfigDict) and group in node else None
    if not isinstance(node, ConfigDict) or name not in node:
        raise UserError(f"unknown config key {key}{_suggest_key(cfg, key)}", status=2)
    default = node[name]
    if isinstance(default, ConfigDict):
        inside = ", ".join(f"{key}.{k}" for k in list(default)[:4])
        raise UserError(f"config key {key} is a group; set a key inside it, such as {inside}", status=2)
    wanted = node.get_type(name)
    parsed = _parse(key, value, default, wanted) if isinstance(value, str) else _fit(key, value, default, wanted, value)
    try:
        node[name] = parsed
    except TypeError as error:
        raise _wrong_type(key, value, default, wanted) from error


def _suggest_key(cfg: ConfigDict, key: str) -> str:
    keys = dotted_keys(cfg)
    leaf = key.split(".")[-1]
    same_leaf = [k for k in keys if k.split(".")[-1] == leaf]
    by_leaf = {k.split(".")[-1]: k for k in keys}
    if same_leaf:
        close = nearest(key, same_leaf) or same_leaf[0]
    else:
        close = nearest(key, keys) or by_leaf.get(nearest(leaf, by_leaf) or "")
    return f"; did you mean {close}?" if close else f"; valid groups and keys: {', '.join(cfg)}"


def _parse(key: str, text: str, default: Any, wanted: type) -> Any:
    """Text of an override as a value of the default's type."""
    if wanted is str:
        return text
    if wanted is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text.lower() == "none":
        return _fit(key, None, default, wanted, text)
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        if wanted in (tuple, list) and all(isinstance(x, str) for x in default or ()):
            value = tuple(part.strip() for part in text.split(","))  # names need no quotes: a,b,c
        else:
            value = text
    if wanted is float and isinstance(value, str) and value.lstrip("+-").lower() in ("inf", "infinity", "nan"):
        value = float(value)
    return _fit(key, value, default, wanted, text)


def _fit(key: str, value: Any, default: Any, wanted: type, shown: Any) -> Any:
    """`value` as the type `wanted`, or UserError. Only int -> float and list <-> tuple are converted."""
    if wanted is type(None) or (value is None and default is None):
        return value  # the file gave no type to hold to
    if wanted is float and type(value) is int:
        return float(value)
    if wanted in (tuple, list) and isinstance(value, tuple | list):
        kinds = {type(x) for x in default or ()}
        kind = kinds.pop() if len(kinds) == 1 else None  # mixed or empty defaults leave the elements free
        items = [float(x) if kind is float and type(x) is int else x for x in value]
        if kind is None or all(type(x) is kind for x in items):
            return wanted(items)
    elif type(value) is wanted or (wanted not in (bool, int, float, str) and isinstance(value, wanted)):
        return value
    raise _wrong_type(key, shown, default, wanted)


def _wrong_type(key: str, shown: Any, default: Any, wanted: type) -> UserError:
    return UserError(f"config key {key} takes {wanted.__name__} (default {default!r}), got {shown!r}", status=2)
