"""File names of samples: no prompt, and no name in a table, leads out of the output folder."""

import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from osjax.errors import UserError

VBENCH = "vbench"
LAYOUTS = ("plain", VBENCH)
MAX_WORDS = 100  # characters of a prompt in a file name
MAX_BYTES = 230  # file systems allow 255 for the whole name; suffixes and marks of unfinished files need room


def stem(layout: str, index: int, prompt: str, name: str | None, sample: int, samples: int) -> str:
    """The file name, without suffix, of sample `sample` (of `samples`) of prompt number `index`.

    layout: "plain" takes the row's `name` if it has one, else the number and the prompt's first words; "vbench" the
    name or else the prompt, to the letter, and the number of the sample, as VBench looks it up (a rewritten prompt has
    the original as its name). UserError for another layout, and where that cannot be a file name.
    """
    if layout == VBENCH:
        return _exact(f"{prompt if name is None else name}-{sample}")
    if layout != "plain":
        raise UserError(f"unknown layout {layout!r}: use one of {', '.join(LAYOUTS)}")
    start = file_stem(index, prompt) if name is None else _cleaned(name)
    return start if samples == 1 else f"{start}-{sample}"


def file_stem(index: int, prompt: str) -> str:
    """The index in four digits, then the prompt's first words: letters, digits and dashes only."""
    words = re.sub(r"[^\w]+", "-", prompt, flags=re.ASCII).strip("-")[:MAX_WORDS]
    return f"{index:04d}-{words}" if words else f"{index:04d}"


def distinct(stems: Sequence[str], case: bool = True) -> list[str]:
    """The stems, none of which occurs twice, else UserError.

    case: whether the file system tells names apart that differ in case alone.
    """
    seen: dict[str, str] = {}
    for one in stems:
        key = one if case else one.casefold()
        if seen.get(key) == one:
            raise UserError(f"two samples would be written to {one!r}: give each row a name of its own, or drop one")
        if key in seen:
            raise UserError(
                f"{one!r} and {seen[key]!r} are one file here, the file system does not tell upper from lower case: "
                "give an --output on one that does, or each row a name of its own"
            )
        seen[key] = one
    return list(stems)


def tells_case_apart(folder: Path) -> bool:
    """Whether the file system of a folder, which need not exist yet, has two files for names of different case."""
    there = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.is_dir())
    try:
        with tempfile.NamedTemporaryFile(prefix=".osjax-case-", dir=there) as file:
            return not Path(file.name).with_name(Path(file.name).name.swapcase()).exists()
    except OSError:
        return True  # nothing can be written there, which is told when the first sample is


def suite_folder(suite: str | None, index: int) -> str:
    """The folder of a suite's samples. UserError for prompt number `index` where it is of none, or cannot be one."""
    if suite is None:
        raise UserError(f"prompt {index + 1} is of no suite: give --prompts with a file a suite, or a column suite")
    return _cleaned(suite)


def _cleaned(name: str) -> str:
    cleaned = re.sub(r"[^\w.-]+", "-", name).strip("-.")
    return _exact(cleaned) if cleaned else _refuse(name, "holds no letter or digit")


def _exact(text: str) -> str:
    if any(sep in text for sep in ("/", "\\", os.sep)):
        _refuse(text, "holds a path separator")
    if any(ord(c) < 32 or ord(c) == 127 for c in text):
        _refuse(text, "holds a control character")
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        _refuse(text, "is not valid text")
    if size > MAX_BYTES:
        _refuse(text, f"is longer than {MAX_BYTES} bytes")
    return text


def _refuse(text: str, why: str) -> NoReturn:
    raise UserError(f"{text[:80]!a} cannot be a file name, it {why}: change it, or use --layout=plain without a name")
