"""Config files at the edge: load one, apply overrides strictly, and turn groups of keys into frozen dataclasses.

A config is a Python file with `get_config() -> ConfigDict`. Overrides may only name keys that exist, with values of the
type that the file gave them: a misspelt key is an error that names the nearest valid one, never a silent no-op.
"""

import ast
import dataclasses
import difflib
import runpy
import traceback
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ml_collections import ConfigDict, FieldReference

from osjax.errors import UserError

T = TypeVar("T")

# The shipped configs lie beside the package, in a clone and in an installed wheel alike.
BUILT_IN = Path(__file__).resolve().parents[2] / "configs"


def load(path: str | Path, overrides: Iterable[tuple[str, str]] | Mapping[str, Any] = ()) -> ConfigDict:
    """Run the config file at `path` and return its locked ConfigDict with `overrides` applied.

    overrides: (dotted key, text) pairs such as ("train.lr", "1e-5"); a mapping, whose values may be text or already
    of the right type, works too.
    Raises UserError (status 2) for a missing file, a file without `get_config`, an unknown key or a wrong type.
    """
    cfg = _execute(find(path))
    cfg.lock()
    for key, value in overrides.items() if isinstance(overrides, Mapping) else overrides:
        _override(cfg, key, value)
    return cfg


def find(path: str | Path) -> Path:
    """The config file that `path` names: as given, or `configs/...` among the shipped ones when run from elsewhere."""
    path = Path(path)
    shipped = BUILT_IN.parent / path
    for candidate in (path, shipped):
        if candidate.is_file():
            return candidate
    known = {_short(p): p for folder in (Path("configs"), BUILT_IN) for p in _config_files(folder)}
    by_stem = {Path(name).stem: name for name in known}
    close = nearest(str(path), known) or by_stem.get(nearest(path.stem, by_stem) or "")
    mend = f"; did you mean {close}?" if close else "; pass --config=FILE.py"
    raise UserError(f"config file {path} does not exist{mend}", status=2)


def _config_files(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.rglob("*.py")) if p.name != "__init__.py"] if folder.is_dir() else []


def _short(path: Path) -> str:
    return str(path.relative_to(BUILT_IN.parent)) if path.is_absolute() else str(path)


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The closest of `words` to a misspelt `word`, or None if none is close."""
    return next(iter(difflib.get_close_matches(word, list(words), n=1)), None)


def _execute(path: Path) -> ConfigDict:
    try:
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
        if isinstance(cfg[name], ConfigDict):
            keys += dotted_keys(cfg[name], f"{prefix}{name}.")
    return keys


def _override(cfg: ConfigDict, key: str, value: Any) -> None:
    *groups, name = key.split(".")
    node = cfg
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


def to_dataclass(cls: type[T], mapping: ConfigDict | Mapping[str, Any], name: str | None = None) -> T:
    """Build the frozen dataclass `cls` from a group of config keys; nested dataclasses are built from nested groups.

    name: the group's dotted name, for messages. Lists become tuples where the field says so, because frozen configs
    must be hashable.
    Raises UserError for unknown keys (naming the nearest), missing keys and values that `cls` rejects.
    """
    name = name or cls.__name__
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    for key in mapping:
        if key not in fields:
            close = nearest(key, fields)
            mend = f"did you mean {close}?" if close else f"valid keys are {', '.join(fields)}"
            raise UserError(f"unknown config key {name}.{key}; {mend}", status=2)
    missing = [k for k, f in fields.items() if k not in mapping and _required(f)]
    if missing:
        raise UserError(f"config group {name} lacks {', '.join(missing)}; add to it", status=2)
    hints = typing.get_type_hints(cls)
    values = {key: _for_field(hints[key], mapping[key], f"{name}.{key}") for key in mapping}
    try:
        return cls(**values)
    except (ValueError, TypeError) as error:
        raise UserError(f"config group {name}: {error}", status=2) from error


def _required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _for_field(hint: Any, value: Any, name: str) -> Any:
    if isinstance(value, FieldReference):
        value = value.get()
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if isinstance(value, Mapping | ConfigDict):  # a ConfigDict is no Mapping
        cls = next((o for o in options if dataclasses.is_dataclass(o)), None)
        if cls is not None:
            return to_dataclass(cls, value, name)
        return value.to_dict() if isinstance(value, ConfigDict) else value
    if isinstance(value, list) and any(tuple in (o, typing.get_origin(o)) for o in options):
        return _as_tuple(value)
    return value


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(v) for v in value) if isinstance(value, list | tuple) else value
