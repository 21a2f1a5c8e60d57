"""Patterns over the paths of parameters, such as `double_blocks/*_attn/qkv`."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from osjax.errors import UserError


def fits(name: str, patterns: Iterable[str]) -> bool:
    """Does a path, or a group that it lies in, fit one of these patterns? `*` stands for any text, slashes too."""
    return any(fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}/*") for pattern in patterns)


def check(key: str, patterns: Iterable[str], names: Sequence[str]) -> None:
    """UserError for the first of `patterns` that fits none of `names`; it lists their groups. key: of the config."""
    for pattern in patterns:
        if not any(fits(name, (pattern,)) for name in names):
            groups = sorted({"/".join(name.split("/")[:2]) for name in names})
            raise UserError(f"{key}: {pattern!r} fits no parameter; there are {', '.join(groups)}", status=2)
