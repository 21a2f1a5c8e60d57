"""What a path and a URL of an object store have in common: gs://, s3://, or whatever else fsspec knows.

The one place that knows what stores raise: their libraries share no class of errors, and what they say runs to pages.
"""

import contextlib
import errno
import logging
import os
import re
from collections.abc import Iterator
from typing import Any

from osjax.errors import UserError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}  # of pyproject.toml, by the front of a URL
LONGEST = 200  # characters of a reason


def is_url(path: str | os.PathLike) -> bool:
    """Whether `path` names a file system other than the local one.

    A local name may hold anything: `http:` for a folder, or the `::` by which fsspec would have one URL read through
    another.
    """
    return _URL.match(str(path)) is not None and "::" not in str(path)


@contextlib.contextmanager
def reaching(url: str | os.PathLike, doing: str = "read", status: int = 1) -> Iterator[None]:
    """A block that asks a store for something; whatever a store's library raises there is a UserError in one line.

    url: what is asked for, which the line names. doing: the participle of what is done: "read", "written", "listed".
    status: of the error. A full disk of this machine is not the store's fault, and is raised as it is.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(f"{url} cannot be {doing} ({reason(error)}): {advice(url, error)}", status=status) from error


def reason(error: BaseException) -> str:
    """What an error says, in one short line. error: of any library."""
    if isinstance(error, ImportError):
        return "the library of that store is not installed"
    if isinstance(error, FileNotFoundError):
        return "it is not there"
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    line = " ".join(str(said).split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."


def advice(url: str | os.PathLike, error: BaseException) -> str:
    """What to do about it. url: what was asked for. error: what came of it."""
    if isinstance(error, ImportError):
        front = str(url).split("://")[0]
        extra = f"osjax[{EXTRAS[front]}]" if front in EXTRAS else f"the library by which fsspec reads {front}://"
        return f"pip install '{extra}'" if front in EXTRAS else f"install {extra}"
    if isinstance(error, FileNotFoundError):
        return "check the name of its bucket and the rest of the URL"
    if isinstance(error, PermissionError) or any(word in str(error) for word in ("Forbidden", "credentials")):
        return "check the credentials and what they may do there (docs/object_stores.md)"
    return "check that the store can be reached from here, and run it again (docs/object_stores.md)"


def opened(url: str | os.PathLike) -> tuple[Any, str]:
    """(fsspec's file system, the path in it) of a URL. UserError where its library is not there.

    What a store listed before is forgotten: others write to it, too.
    """
    import fsspec  # not at the top: most runs name no URL

    with reaching(url, "opened"):
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it logs what it raises, with a traceback
        files, root = fsspec.core.url_to_fs(str(url))
        files.invalidate_cache()
    return files, root.rstrip("/")


def exists(path: str | os.PathLike) -> bool:
    """Whether there is a file or a folder at `path`, local or a URL. UserError where a store cannot be asked."""
    if not is_url(path):
        return os.path.exists(path)
    files, name = opened(path)
    with reaching(path):
        return files.exists(name)


def sizes(url: str | os.PathLike) -> dict[str, int]:
    """Bytes of every file below a URL, by its path below it; none where there is nothing."""
    files, root = opened(url)
    with reaching(url, "listed"):
        try:
            listed = files.find(root, detail=True)
        except FileNotFoundError:
            return {}
    below = {name[len(root) :].lstrip("/"): about for name, about in listed.items() if not name.endswith("/")}
    return {name: int(about["size"]) for name, about in below.items() if name}


def read(url: str | os.PathLike) -> bytes:
    """The contents of the file at `url`. UserError where it cannot be read."""
    files, name = opened(url)
    with reaching(url):
        return files.cat_file(name)


def write(url: str, data: bytes) -> None:
    """Make `data` the contents of the file at `url`. UserError where it cannot be written."""
    files, name = opened(url)
    with reaching(url, "written"):
        files.pipe_file(name, data)


def get(url: str, path: os.PathLike) -> None:
    """Copy the file at `url` to the local `path`, piece by piece. UserError where it cannot be read."""
    files, name = opened(url)
    with reaching(url):
        files.get_file(name, str(path))


def put(path: os.PathLike, url: str) -> None:
    """Copy the local file at `path` to `url`, piece by piece. UserError where it cannot be written.

    FileNotFoundError where `path` is not there: that is no fault of the store.
    """
    files, name = opened(url)
    os.stat(path)
    with reaching(url, "written"):
        files.put_file(str(path), name)


def remove(url: str) -> None:
    """Take the file at `url` away, where it is there. UserError where that cannot be done."""
    files, name = opened(url)
    with reaching(url, "removed"), contextlib.suppress(FileNotFoundError):
        files.rm_file(name)
