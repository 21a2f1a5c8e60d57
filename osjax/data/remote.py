"""Files and folders given as paths or as URLs of any file system that fsspec knows: gs://, s3://, memory://, ..."""

import hashlib
import os
import re
from pathlib import Path

import fsspec

from osjax import atomic
from osjax.errors import UserError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
CACHE = "~/.cache/osjax/data"  # OSJAX_DATA_CACHE names another folder


def is_url(path: str | os.PathLike) -> bool:
    """Whether `path` names a file system other than the local one.

    A local name may hold anything: `http:` for a folder, or the `::` by which fsspec would have one URL read through
    another.
    """
    return _URL.match(str(path)) is not None and "::" not in str(path)


def read_bytes(path: str | os.PathLike) -> bytes:
    """The contents of the file or URL `path`. UserError, one line, where it cannot be read, or is a pipe or device."""
    try:
        if not is_url(path):
            if not os.path.isfile(path) and os.path.exists(path):
                raise OSError("no file")
            return Path(path).read_bytes()
        with fsspec.open(str(path), "rb") as file:
            return file.read()
    except Exception as error:  # every file system has errors of its own
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UserError(f"{path} cannot be read ({reason}): check the path and its access rights") from error


def local_folder(path: str | os.PathLike) -> Path:
    """A folder on this machine with the files of `path`: itself where it is local, else a copy in the cache.

    ArrayRecord files are read by random access, which needs local ones. A file is copied once: only where its size
    differs from that of the copy, and whole or not at all. UserError for a URL without files.
    """
    if not is_url(path):
        return Path(path)
    if str(path).startswith("file://"):
        return Path(str(path).removeprefix("file://"))
    try:
        files, root = fsspec.core.url_to_fs(str(path))
        names = [name for name in files.find(root) if not name.endswith("/")]
    except Exception as error:
        raise UserError(f"{path} cannot be listed ({error}): check the URL and its access rights") from error
    if not names:
        raise UserError(f"{path} holds no data set: build it first")
    cache = Path(os.environ.get("OSJAX_DATA_CACHE", CACHE)).expanduser()
    target = cache / hashlib.sha256(str(path).encode()).hexdigest()[:16]
    for name in names:
        inside = name[len(root) :].lstrip("/")
        copy = target / inside
        if ".." in Path(inside).parts:
            raise UserError(f"{path} names the file {inside} outside its folder: build the data set anew")
        if copy.is_file() and copy.stat().st_size == files.size(name):
            continue
        with atomic.complete(copy) as partial:
            files.get_file(name, str(partial))
    return target


def upload_folder(folder: Path, url: str) -> None:
    """Copy the files below a local `folder` to the folder `url`."""
    files, root = fsspec.core.url_to_fs(url)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        to = f"{root.rstrip('/')}/{path.relative_to(folder)}"
        files.makedirs(to.rsplit("/", 1)[0], exist_ok=True)
        files.put_file(str(path), to)
