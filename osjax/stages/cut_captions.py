"""How many captions of a run are longer than what its text encoder takes."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

log = logging.getLogger(__name__)


class CutCaptions:
    """A count of captions that were cut, told once: after the first `enough` of them, or when a run ends before.

    cut: {what is full: words that do not fit} of a text, such as `T5AndCLIP.cut`; None counts nothing.
    """

    def __init__(self, cut: Callable[[str], Mapping[str, str]] | None, enough: int = 1000):
        self._cut, self._enough = cut, enough
        self._seen, self._counts, self._told = 0, Counter[str](), cut is None

    def add(self, captions: Sequence[str]) -> None:
        """Count `captions`, as they pass."""
        if self._told:
            return
        for caption in captions:
            self._counts.update(self._cut(caption).keys())
        self._seen += len(captions)
        if self._seen >= self._enough:
            self.tell()

    def tell(self) -> None:
        """Log the counts, where any caption was cut and nothing was told yet."""
        if self._told or not self._seen:
            return
        self._told = True
        for what, count in self._counts.items():
            log.warning(
                "%d of the first %d captions are longer than %s: the model is not told the rest",
                count,
                self._seen,
                what,
            )
