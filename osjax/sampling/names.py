"""File names of samples: no prompt, and no name in a table, leads out of the output folder."""

import os
import re
from collections.abc import Sequence

from osjax.errors import UserError

LAYOUTS = ("plain", "vbench")
MAX_WORDS = 100  # characters of a prompt in a file name
MAX_BYTES = 230  # file systems allow 255 for the whole name; suffixes and marks of unfinished files need room


def stem(layout: str, index: int, prompt: str, name: str | None, sample: int, samples: int) -> str:
    """The file name, without suffix, of sample `sample` (of `samples`) of prompt number `index`.

    layout: "plain" takes the row's `name` if it has one, else the number and the prompt's first words; "vbench" the
    prompt to the letter and the number of the sample, as VBench looks it up. UserError for another layout, and where
    that cannot be a file name.
    """
    if layout == "vbench":
        return _exact(f"{prompt}-{sample}")
    if layout != "plain":
        raise UserError(f"unknown layout {layout!r}: use one of {', '.join(LAYOUTS)}")
    start = file_stem(index, prompt) if name is None else _cleaned(name)
    return start if samples == 1 else f"{start}-{sample}"


def file_stem(index: int, prompt: str) -> str:
    """The index in four digits, then the prompt's first words: letters, digits and dashes only."""
    words = re.sub(r"[^\w]+", "-", prompt, flags=re.ASCII).strip("-")[:MAX_WORDS]
    return f"{index:04d}-{words}" if words else f"{index:04d}"


def distinct(stems: Sequence[str]) -> list[str]:
    """The stems, none of which occurs twice, else UserError. Case does not tell files apart everywhere."""
    seen: set[str] = set()
    for one in stems:
        if one.casefold() in seen:
            raise UserError(f"two samples would be written to {one!r}: give each row a name of its own, or drop one")
        seen.add(one.casefold())
    return list(stems)


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


def _refuse(text: str, why: str):
    raise UserError(f"{text[:80]!a} cannot be a file name, it {why}: change it, or use --layout=plain without a name")
