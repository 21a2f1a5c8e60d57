"""Groups of config keys and frozen dataclasses: one is made from the other, so that every key is written down once.

`group(cls)` makes the ConfigDict that a config file changes, `to_dataclass` the frozen object that acts on it, and
`refuse` names a key that was set although the choices beside it leave nothing that would read it.
"""

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Protocol, TypeVar

from ml_collections import ConfigDict, FieldReference
from ml_collections.config_dict import placeholder

from osjax.errors import UserError
from osjax.parts.config import nearest


class Dataclass(Protocol):
    """Any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]


T = TypeVar("T", bound=Dataclass)


def group(cls: type, but: Iterable[str] = (), **defaults: Any) -> ConfigDict:
    """The group of config keys that stands for a frozen dataclass, with its defaults.

    cls: every field needs a default; one that may be None becomes a typed placeholder, a dataclass a group inside.
    but: fields that are no keys of this group. defaults: other values than the dataclass's own.
    """
    cfg, hints = ConfigDict(), typing.get_type_hints(cls)
    unknown = [name for name in (*but, *defaults) if name not in hints]
    if unknown:
        raise TypeError(f"{cls.__name__} has no field {unknown[0]}")
    for field in dataclasses.fields(cls):
        if field.name in but or not field.init:
            continue
        value = defaults[field.name] if field.name in defaults else _default(field)
        if dataclasses.is_dataclass(value):
            kinds = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
            cfg[field.name] = group(type(value), **kinds)
        elif isinstance(value, Mapping):
            cfg[field.name] = ConfigDict(dict(value))
        elif value is None:
            kind = next(o for o in _options(hints[field.name]) if o is not type(None))
            cfg[field.name] = placeholder(typing.get_origin(kind) or kind)
        else:
            cfg[field.name] = value
    return cfg


def optional(cls: type, **given: Any) -> ConfigDict:
    """The group of a dataclass's keys with nothing said: each is an empty placeholder but for those `given`."""
    cfg, hints = ConfigDict(), typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        kind = next(o for o in _options(hints[field.name]) if o is not type(None))
        cfg[field.name] = given.get(field.name, placeholder(typing.get_origin(kind) or kind))
    return cfg


def said(group: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of an `optional` group that say something."""
    return {key: value for key, value in group.items() if value is not None}


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    raise TypeError(f"field {field.name} has no default, so it cannot be a config key")


def refuse(recipe: Any, name: str, read: Iterable[str], why: str, **defaults: Any) -> None:
    """Refuse what was set in a group although nothing reads it: UserError (status 2) that names the key.

    recipe: the dataclass made of the group. name: the group's dotted name, empty for none. read: fields that are read.
    why: why the others are not, such as "lora.rank is 0". defaults: of the group, where they differ from the
    dataclass's own; a field at its default says nothing, so it is never refused.
    """
    for field in dataclasses.fields(recipe):
        if field.name in read:
            continue
        value, default = getattr(recipe, field.name), defaults.get(field.name, _default(field))
        if value != default:
            raise _unread(_dotted(name, field.name), value, why)


def refuse_all(given: Mapping[str, Any], group: object, name: str, why: str) -> None:
    """`refuse` for every key of a group that no single dataclass stands for.

    given: the group as a plain mapping. group: the ConfigDict with its defaults. name, why: as `refuse` has.
    """
    for key, value in given.items():
        default = group.get(key) if isinstance(group, ConfigDict) else None
        if isinstance(value, Mapping):
            refuse_all(value, default, _dotted(name, key), why)
        elif value != default:
            raise _unread(_dotted(name, key), value, why)


def _unread(key: str, value: Any, why: str) -> UserError:
    return UserError(f"config key {key} is {_short(value)}, but {why}, so nothing reads it: leave it out", status=2)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def to_dataclass(cls: type[T], mapping: ConfigDict | Mapping[str, Any], name: str | None = None) -> T:
    """Build the frozen dataclass `cls` from a group of config keys; nested dataclasses are built from nested groups.

    mapping: the group. name: its dotted name, for messages. Lists become tuples where the field says so, because frozen
    configs must be hashable. Raises UserError for unknown keys (naming the nearest), missing keys and values that `cls`
    rejects.
    """
    name = cls.__name__ if name is None else name
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    for key in mapping:
        if key not in fields:
            close = nearest(key, fields)
            mend = f"did you mean {close}?" if close else f"valid keys are {', '.join(fields)}"
            raise UserError(f"unknown config key {_dotted(name, key)}; {mend}", status=2)
    missing = [k for k, f in fields.items() if k not in mapping and _required(f)]
    if missing:
        raise UserError(f"config group {name or 'of the stage'} lacks {', '.join(missing)}; add to it", status=2)
    hints = typing.get_type_hints(cls)
    values = {key: _for_field(hints[key], mapping[key], _dotted(name, key)) for key in mapping}
    try:
        return cls(**values)
    except UserError as error:
        raise UserError(located(str(error), name, fields), status=2) from error
    except (ValueError, TypeError) as error:
        raise UserError(f"config group {name}: {error}", status=2) from error


def located(message: str, name: str, fields: Iterable[str]) -> str:
    """A dataclass's own message about its group, with the name of the group: it does not know where it stands.

    message: of its UserError. name: the group's dotted name. fields: of the dataclass.
    """
    if not name or message.startswith((f"{name}.", f"{name}:", "config key ")):
        return message
    return f"{name}.{message}" if message.split()[0].rstrip(":,") in fields else f"{name}: {message}"


def _dotted(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _for_field(hint: Any, value: Any, name: str) -> Any:
    if isinstance(value, FieldReference):
        value = value.get()
    options = _options(hint)
    if isinstance(value, Mapping | ConfigDict):  # a ConfigDict is no Mapping
        cls = next((o for o in options if isinstance(o, type) and dataclasses.is_dataclass(o)), None)
        if cls is not None:
            return to_dataclass(cls, value, name)
        return value.to_dict() if isinstance(value, ConfigDict) else value
    if isinstance(value, list) and any(tuple in (o, typing.get_origin(o)) for o in options):
        return _as_tuple(value)
    return value


def _options(hint: Any) -> tuple[Any, ...]:
    """The types of a union, or the one type."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(v) for v in value) if isinstance(value, list | tuple) else value
