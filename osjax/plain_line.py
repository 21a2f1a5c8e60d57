"""Text of foreign files on a terminal and in logs: one line, in which nothing acts."""

import logging
import unicodedata

# Control characters, which move cursors and set titles; marks of direction, which turn text around; ends of lines.
ACTING = ("Cc", "Cf", "Cs", "Zl", "Zp")


def plain(text: str) -> str:
    r"""`text` with every character that a terminal or a log acts on as its escape, such as \x1b."""
    if text.isprintable():
        return text
    return "".join(_escaped(c) if unicodedata.category(c) in ACTING else c for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


class Formatter(logging.Formatter):
    """Messages of a log in one line each, whatever the names and texts in them are."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line of a record, as logging asks for it."""
        record.message = plain(record.message)
        return super().formatMessage(record)
