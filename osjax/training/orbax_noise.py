"""What Orbax and TensorStore print of a save that fails: pages of tracebacks, of each of their threads.

The error itself is raised to the one who saves, and told in one line; these say it again.
"""

import logging
import os
import sys
from typing import Any

_OF_ORBAX = f"{os.sep}orbax{os.sep}"
_LEFT_BEHIND = "Event loop is closed"  # what TensorStore's writes find that end after the first has failed
_before: list[Any] = []


def _is_new(record: logging.LogRecord) -> bool:
    return record.levelno < logging.ERROR or _OF_ORBAX not in record.pathname


def _unraisable(told: Any) -> None:
    if not (isinstance(told.exc_value, RuntimeError) and str(told.exc_value) == _LEFT_BEHIND):
        _before[0](told)


def hush() -> None:
    """Keep that from the log and from stderr, from now on."""
    logging.getLogger("absl").addFilter(_is_new)  # the same one, however often
    if sys.unraisablehook is not _unraisable:
        _before[:] = [sys.unraisablehook]
        sys.unraisablehook = _unraisable
