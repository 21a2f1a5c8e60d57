"""Files and folders given as paths or as URLs of any file system that fsspec knows: gs://, s3://, memory://, ..."""

import hashlib
import os
import tempfile
from pathlib import Path

from osjax import atomic, object_store
from osjax.data import fingerprints
from osjax.errors import UserError
from osjax.file_name import is_plain
from osjax.object_store import is_url

CACHE = "~/.cache/osjax/data"  # OSJAX_DATA_CACHE names another folder
INFO = "dataset_info.json"  # of TFDS: a folder with one is a data set


def read_bytes(path: str | os.PathLike) -> bytes:
    """The contents of the file or URL `path`. UserError, one line, where it cannot be read, or is a pipe or device."""
    if is_url(path):
        return object_store.read(path)
    try:
        if not os.path.isfile(path) and os.path.exists(path):
            raise OSError("no file")
        return Path(path).read_bytes()
    except Exception as error:  # every file system has errors of its own
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UserError(f"{path} cannot be read ({reason}): check the path and its access rights") from error


def local_folder(path: str | os.PathLike) -> Path:
    """A folder on this machine with the data set of `path`: itself where it is local, else a copy in the cache.

    ArrayRecord files are read by random access, which needs local ones. A file is copied once: only where the copy is
    not of the fingerprint that the URL lists, and whole or not at all. UserError for a URL without a data set, and for
    one that is not whole: `dataset_info.json` is uploaded last, and the fingerprints name all that must be there.
    """
    if not is_url(path):
        return Path(path)
    if str(path).startswith("file://"):
        return Path(str(path).removeprefix("file://"))
    there = object_store.sizes(path)
    if INFO not in there:
        raise UserError(f"{path} holds no data set: build it first, or wait until its upload is complete")
    if fingerprints.FILE not in there:
        raise UserError(f"{path} has no {fingerprints.FILE}, so its upload was not complete: {_AGAIN}")
    cache = Path(os.environ.get("OSJAX_DATA_CACHE", CACHE)).expanduser()
    target = cache / hashlib.sha256(str(path).encode()).hexdigest()[:16]
    before = fingerprints.read(target) if (target / INFO).is_file() else {}
    with tempfile.TemporaryDirectory() as fresh:
        _copy(path, fingerprints.FILE, Path(fresh) / fingerprints.FILE)
        listed = fingerprints.read(Path(fresh))
        lost = [name for name, about in listed.items() if there.get(name) != about["bytes"]]
        if lost:
            raise UserError(f"{path} is not whole, {lost[0]} is missing or of another size: {_AGAIN}")
        others = [name for name in there if name not in listed and name != fingerprints.FILE and is_plain(name)]
        for name in [*listed, *others]:
            copy = target / name
            same = name not in listed or before.get(name) == listed[name]
            if not (same and copy.is_file() and copy.stat().st_size == there[name]):
                _copy(path, name, copy, listed.get(name))
        # Last: it says what the other files are.
        atomic.write_bytes(target / fingerprints.FILE, (Path(fresh) / fingerprints.FILE).read_bytes())
    return target


_AGAIN = "build the data set anew, or copy it again with its dataset_info.json last"


def _copy(url: str | os.PathLike, name: str, copy: Path, want: dict | None = None) -> None:
    """Bring the file `name` of the folder `url` to `copy`. UserError where it is not of the fingerprint `want`."""
    whole = f"{str(url).rstrip('/')}/{name}"
    with atomic.complete(copy) as partial:
        object_store.get(whole, partial)
        if want is not None and fingerprints.of_file(partial) != want:
            raise UserError(f"{whole} did not arrive as its fingerprint has it: run it again, or build it anew")


def upload_folder(folder: Path, url: str) -> None:
    """Copy the files below a local `folder` to the folder `url`, so that a data set is seen once it is whole.

    The `dataset_info.json` of one that lies there goes first and that of the new one comes last; files of the older
    one that the new one has not are taken away.
    """
    url = url.rstrip("/")
    named = {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file()}
    infos = [name for name in named if Path(name).name == INFO]
    for name in infos:
        object_store.remove(f"{url}/{name}")
    for name in [name for name in named if name not in infos]:
        object_store.put(named[name], f"{url}/{name}")
    for name in infos:
        place = Path(name).parent
        for old in object_store.sizes(f"{url}/{place}"):
            if str(place / old) not in named:
                object_store.remove(f"{url}/{place}/{old}")
        object_store.put(named[name], f"{url}/{name}")
