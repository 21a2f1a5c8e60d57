"""Files that are there whole or not at all, whenever the process or the machine stops: written beside, then renamed."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def complete(path: Path | str) -> Iterator[Path]:
    """A path to write to, which becomes `path` when the block ends well and is removed when it does not.

    path: a local file, or a link to one; its folder is made. A pipe or a device, such as /dev/stdout, is written to as
    it is. What a killed process leaves is hidden and ends in ".part".
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        yield path
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = beside(path)
    try:
        yield partial
        place(partial, path)
    except OSError as error:
        # So that it is said what could not be written.
        if error.errno is not None and str(error.filename or partial) == str(partial):
            error.filename = str(path)
        raise
    finally:
        with contextlib.suppress(OSError):  # of a disk that is write-protected: it has been said
            partial.unlink(missing_ok=True)


def beside(path: Path) -> Path:
    """Where this process writes what is to become `path`: hidden, in the same folder, with another suffix."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def place(partial: Path, path: Path) -> None:
    """Rename a finished file, `partial`, to `path`: others see it whole from then on, after a loss of power too."""
    _to_disk(partial)
    os.replace(partial, path)
    with contextlib.suppress(OSError):  # file systems without folders of their own, such as a mounted bucket
        _to_disk(path.parent)


def _to_disk(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


# How the system, and TFDS before it begins, say so.
FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT), "Not enough disk space")


def is_full_disk(error: BaseException | None) -> bool:
    """Whether `error`, or what it came from, says that a disk or a quota is full; libraries say so in words alone."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(words in str(error) for words in FULL):
            return True
        error = error.__cause__ or error.__context__
    return False


# What a process may not do any more, by how the system says so, and how that is mended.
LIMITS = {
    errno.EMFILE: ("no file descriptors are left for this process", "raise `ulimit -n`"),
    errno.ENFILE: ("no file descriptors are left on this machine", "end what holds them"),
    errno.EFBIG: ("a file would be larger than a file may be", "raise `ulimit -f`, or use another file system"),
}


def limit_of(error: BaseException | None) -> tuple[str, str] | None:
    """What `error`, or what it came from, ran into of LIMITS, and how that is mended; None for none of them."""
    while error is not None:
        for number, told in LIMITS.items():
            if (isinstance(error, OSError) and error.errno == number) or os.strerror(number) in str(error):
                return told
        error = error.__cause__ or error.__context__
    return None


def write_bytes(path: Path | str, data: bytes) -> None:
    """Make `data` the contents of the file `path`."""
    with complete(path) as partial:
        partial.write_bytes(data)


def write_text(path: Path | str, text: str) -> None:
    """Make `text`, in UTF-8, the contents of the file `path`."""
    write_bytes(path, text.encode())
