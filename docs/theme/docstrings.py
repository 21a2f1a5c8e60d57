"""Docstrings of the house as Markdown: prose in which "name: what it is" explains arguments and fields.

Each such explanation becomes an item of a list, each sentence on errors a paragraph, aligned and indented lines a block
of code. Only names that the function, the class or the module knows count; all other colons are prose. A comment behind
a field of a class explains it, too.
"""

import re

import griffe

ERRORS = re.compile(r"(?<=[.;:)] )(?=(?:Raises )?\w+Error\b)|(?<=[.;:)] )(?=Source: )")
COLUMNS = re.compile(r"\S {2,}\S")


class Prose(griffe.Extension):
    """Rewrites every docstring of a package once it is loaded."""

    def on_package(self, *, pkg: griffe.Module, **_: object) -> None:
        """Walk the package."""
        rewrite(pkg)


def rewrite(thing: griffe.Object) -> None:
    """Turn the docstrings of a module, class, function or attribute, and of all inside, to Markdown."""
    for member in thing.members.values():
        if not member.is_alias:
            rewrite(member)
    if thing.docstring is not None:
        thing.docstring.value = markdown(thing.docstring.value, known(thing)) + commented(thing)


def known(thing: griffe.Object) -> set[str]:
    """Names that a docstring may explain: arguments; of a class its fields, of a module all of its functions."""
    if thing.is_function:
        return {parameter.name.lstrip("*") for parameter in thing.parameters} | known_of_class(thing.parent)
    inside = [member for member in thing.members.values() if not member.is_alias]
    arguments = {parameter.name for member in inside if member.is_function for parameter in member.parameters}
    return arguments | {member.name for member in inside if member.is_attribute}


def known_of_class(parent: griffe.Object | None) -> set[str]:
    """Arguments that an `__init__` may explain for the class around it; none of a module."""
    return set() if parent is None or parent.is_module else known(parent)


def commented(thing: griffe.Object) -> str:
    """A list of the fields of a class that have a comment behind them in its source."""
    fields = [member for member in thing.members.values() if member.is_attribute] if thing.is_class else []
    lines = [(field.name, re.search(r"  # (?!noqa)(.+)$", (field.source or "").strip("\n"))) for field in fields]
    items = [f"- **`{name}`**: {escaped(comment[1])}" for name, comment in lines if comment]
    return "\n\n" + "\n".join(items) if items else ""


def markdown(text: str, names: set[str]) -> str:
    """A docstring as Markdown. names: those that a colon explains."""
    blocks = re.split(r"\n\s*\n", text.strip("\n"))
    return "\n\n".join(part for block in blocks for part in parts(block.split("\n"), names))


def parts(lines: list[str], names: set[str]) -> list[str]:
    """The paragraphs, lists and blocks of code of lines that no empty one divides."""
    if all(line.startswith("    ") for line in lines):
        return ["\n".join(lines)]
    if lines[0].startswith(("- ", "* ", "1. ", "|", "```")):
        return ["\n".join(lines)]
    for first in range(1, len(lines)):
        last = first
        while last < len(lines) and lines[last].startswith("    "):
            last += 1
        rows = lines[first:last]
        if rows and sum(bool(COLUMNS.search(row.strip())) for row in rows) * 2 >= len(rows):
            after = parts(lines[last:], names) if lines[last:] else []
            return [*parts(lines[:first], names), "\n".join(rows), *after]
    return explained(" ".join(line.strip() for line in lines), names)


def explained(text: str, names: set[str]) -> list[str]:
    """A paragraph with its explanations taken out into a list."""
    if not names:
        return [escaped(part.strip()) for part in ERRORS.split(text)]
    name = r"(?:" + "|".join(sorted(map(re.escape, names), key=len, reverse=True)) + r")"
    starts = re.compile(rf"(?:^|(?<=[.;)] ))`?({name}(?:(?:, | and ){name})*)`?: +")
    pieces = starts.split(text)  # prose, then a name and what it is, again and again
    out = [escaped(part.strip()) for part in ERRORS.split(pieces[0]) if part.strip()]
    items, rest = [], []
    for who, what in zip(pieces[1::2], pieces[2::2], strict=True):
        what, *after = ERRORS.split(what)
        items.append(f"- **`{who}`**: {escaped(what.strip())}")
        rest += [escaped(part.strip()) for part in after]
    return [*out, *(["\n".join(items)] if items else []), *rest]


def escaped(text: str) -> str:
    """Prose in which nothing but `code` means something to Markdown."""
    pieces = re.split(r"(`[^`]*`)", text)
    prose = [re.sub(r"([*\[]|\b_|_\b)", r"\\\1", piece).replace("<", "&lt;") for piece in pieces[::2]]
    pieces[::2] = prose
    return "".join(pieces)
