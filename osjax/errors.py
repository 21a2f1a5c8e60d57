"""The one error a user causes and can mend, alone or several at once."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class UserError(Exception):
    """Bad input: a config key, a file, a size, a flag. The message is one line that says what to do.

    The command line prints it without a traceback and exits with `status` (2 for bad usage, 1 otherwise).
    """

    def __init__(self, message: str, *, status: int = 1):
        super().__init__(message)
        self.status = status

    @property
    def lines(self) -> tuple[str, ...]:
        """What is wrong, a line a mistake."""
        return (str(self),)


class Problems(UserError):
    """Several mistakes, told together so that one run of a command finds them all. problems: a line each."""

    def __init__(self, problems: Sequence[str], *, status: int = 2):
        super().__init__("; ".join(problems), status=status)
        self._problems = tuple(problems)

    @property
    def lines(self) -> tuple[str, ...]:
        """What is wrong, a line a mistake."""
        return self._problems


class Gathered:
    """Checks that do not need each other: `with gathered:` around each keeps its mistakes, `end` tells all of them.

    prefix: ahead of every line, such as the name of a stage.
    """

    def __init__(self, prefix: str = ""):
        self.prefix = prefix
        self.lines: list[str] = []

    def __enter__(self) -> "Gathered":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, UserError):
            return False
        self.add(error.lines)
        return True

    def add(self, lines: Sequence[str]) -> None:
        """Keep mistakes, those that are known already but once. lines: one each."""
        named = [line if line.startswith(self.prefix) else self.prefix + line for line in lines]
        self.lines += [line for line in dict.fromkeys(named) if line not in self.lines]

    def end(self) -> None:
        """UserError, status 2, where anything was wrong."""
        if len(self.lines) == 1:
            raise UserError(self.lines[0], status=2)
        if self.lines:
            raise Problems(self.lines)


@contextmanager
def usage() -> Iterator[None]:
    """A block, or a function, that looks at what was asked for: each of its UserErrors is of bad usage, status 2."""
    try:
        yield
    except UserError as error:
        error.status = 2
        raise
