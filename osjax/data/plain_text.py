"""Text of files that people hand in: the Unicode encodings are read, others are refused, and blank words are none.

Encodings with one byte a character are not guessed: charset-normalizer 3.5 read 5 of 13 short captions wrong, which
would be trained on without a word.
"""

import codecs
import unicodedata
from pathlib import Path
from typing import Any

from osjax.errors import UserError

# UTF-32's little-endian mark begins with that of UTF-16.
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# What pandas, NumPy, Python, JSON and SQL write where nothing is.
ABSENT = frozenset(("nan", "none", "null", "<na>", "n/a", "#n/a", "nat"))
LOST = "\ufffd"  # what programs write in place of characters that they could not read
ADVICE = "save it as UTF-8"


def read(path: Path | str) -> str:
    """The text of the file `path`, see `decode`. UserError that names the file where it is no text."""
    try:
        return decode(Path(path).read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check the path and its access rights") from error
    except UserError as error:
        raise UserError(f"{path} {error}") from error


def decode(data: bytes) -> str:
    """The text of `data`: UTF-8, UTF-16 or UTF-32, with a mark or without; lines end in a line feed.

    UserError, a sentence without its subject, for other encodings and for NUL. UTF-16 without a mark is known by the
    zero bytes of its spaces, digits and Latin letters.
    """
    for mark, encoding in MARKS:
        if data.startswith(mark):
            try:
                return _checked(data[len(mark) :].decode(encoding))
            except UnicodeDecodeError as error:
                raise UserError(f"begins with the mark of {encoding} but is not ({error.reason}): {ADVICE}") from error
    if b"\0" in data:
        return _checked(_wide(data))
    try:
        return _checked(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"line {line} is neither UTF-8 nor UTF-16 with a mark: {ADVICE}") from error


def _wide(data: bytes) -> str:
    """The text of UTF-16 or UTF-32 without a mark: of the readings without control characters the one most ASCII."""
    readings = []
    for encoding in ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if all(c in "\t\n\r" or unicodedata.category(c) not in ("Cc", "Cn", "Co") for c in text):
            readings.append(text)
    if not readings:
        raise UserError(f"holds NUL and is no UTF-16: {ADVICE}")
    return max(readings, key=lambda text: sum(c.isascii() for c in text))


def _checked(text: str) -> str:
    if "\0" in text:
        raise UserError(f"holds NUL: {ADVICE}")
    # Marks also stand inside where files were joined.
    return text.replace("\ufeff", "").replace("\r\n", "\n").replace("\r", "\n")


def caption(value: Any) -> str:
    """The caption or prompt `value` of a table, "" where it says nothing.

    value: text, or what readers give for an empty cell: None, NaN. Nothing is said by blanks, characters that cannot be
    seen, and the words nan, None, null, <NA> and N/A in any case.
    UserError, a sentence without its subject, for other types, for NUL and where characters were lost (U+FFFD).
    """
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if not isinstance(value, str):
        raise UserError(f"is of type {type(value).__name__}, not text")
    if LOST in value:
        raise UserError("lost characters when it was written (it holds U+FFFD): write it anew from its source")
    text = _checked(value).strip()
    seen = any(c.isprintable() and not c.isspace() for c in text)
    return text if seen and text.casefold() not in ABSENT else ""
