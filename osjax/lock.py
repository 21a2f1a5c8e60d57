"""One writer at a time: what a second process would destroy is held by a lock of the kernel and a file that says whose.

The kernel's lock ends with its process, however that ends, so nothing stale is left. Other machines may not see it
(a mounted bucket, a network disk without locks, an object store): for them the owner's file counts up every few
seconds, and only one that has stopped counting is passed over.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etils import epath

from osjax import object_store
from osjax.atomic import is_full_disk
from osjax.errors import UserError
from osjax.object_store import reaching

LOCK, OWNER = ".osjax.lock", ".osjax.owner.json"
BEAT_S = 5.0  # between two signs of life of an owner
SILENT_S = 20.0  # without one an owner that the kernel does not know is taken for dead
SETTLE_S = 1.0  # until of two that claim at once one is seen, where only the file says whose it is
UNKNOWN = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOLCK}  # file systems without locks
Owner = dict[str, Any]


@contextlib.contextmanager
def held(folder: epath.PathLike, doing: str, name: str = "") -> Iterator[None]:
    """A block in which this process alone, of all that ask, writes to a folder; others are told who does.

    folder: local, and then made, or a URL of an object store. doing: the command, for those who are refused. name: goes
    before the names of the lock's files, where it is not of the whole folder. UserError, status 2, while another
    process holds it.
    """
    local = "://" not in str(folder)
    with contextlib.nullcontext() if local else reaching(folder, "locked", status=2):
        place = epath.Path(folder)
    made = local and not place.exists()
    try:
        if local:  # stores have no folders, and to make one could make a bucket
            place.mkdir(parents=True, exist_ok=True)
        if local and not os.access(place, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        if is_full_disk(error):
            raise
        raise UserError(f"{folder} cannot be written ({error.strerror}): name another folder", status=2) from error
    kernel = _KernelLock(Path(place) / f"{name}{LOCK}") if local else None
    claim = _Claim(place / f"{name}{OWNER}", doing)
    try:
        with contextlib.nullcontext() if local else reaching(folder, "locked", status=2):
            other = claim.read()
            if kernel is not None and not kernel.take():
                raise UserError(_refusal(folder, other), status=2)
            alone = kernel is not None and kernel.works
            if other and not (alone and other.get("kernel") == _kernel()) and claim.lives(other):
                raise UserError(_refusal(folder, other), status=2)
            claim.make(settle=not alone)
            if claim.read().get("token") != claim.mine["token"]:
                raise UserError(_refusal(folder, claim.read()), status=2)
        with claim.beating():
            yield
    finally:
        claim.drop()
        if kernel is not None:
            kernel.drop()
        if made:
            with contextlib.suppress(OSError):  # not empty, as it should be
                os.rmdir(folder)


class _KernelLock:
    """A lock of the whole file `path`. works: whether its file system has such locks, known once it was taken."""

    def __init__(self, path: Path):
        self.path, self.works, self._file = path, True, -1

    def take(self) -> bool:
        """Whether this process has it now; True without one where there are none."""
        while True:
            try:
                opened = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            except FileNotFoundError:  # the one before made the folder and took it away
                self.path.parent.mkdir(parents=True, exist_ok=True)
                continue
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The one before may have removed the file between our two calls: then it is nobody's.
                if os.fstat(opened).st_nlink:
                    self._file = opened
                    return True
                os.close(opened)
            except OSError as error:
                os.close(opened)
                if error.errno not in UNKNOWN:
                    if isinstance(error, BlockingIOError | PermissionError):
                        return False
                    raise
                self.works = False
                return True

    def drop(self) -> None:
        if self._file >= 0 or not self.works:
            self.path.unlink(missing_ok=True)  # first: who opens it from now on makes another
        if self._file >= 0:
            os.close(self._file)


class _Claim:
    """The file that says whose a folder is. path: of the file. doing: what its owner does. mine: what it says of us."""

    def __init__(self, path: epath.Path, doing: str):
        self.path, self._made, self._end = path, False, threading.Event()
        self._remote = object_store.is_url(path)
        self.mine: Owner = {
            "token": uuid.uuid4().hex,
            "doing": doing,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
            "started": _started(os.getpid()),
            "kernel": _kernel(),
            "pids": _pids(),
            "beat": 0,
        }

    def read(self) -> Owner:
        """Who owns it, {} where nobody does or the file is no owner's. A store that does not answer is not nobody."""
        try:
            told = json.loads(object_store.read(str(self.path)) if self._remote else self.path.read_text())
        except (OSError, ValueError):
            return {}
        except UserError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            return {}
        return told if isinstance(told, dict) and self.mine.keys() <= told.keys() else {}

    def lives(self, other: Owner) -> bool:
        """Whether another owner is at work: asked of this machine where it is its own, else waited for a beat."""
        if (other.get("kernel"), other.get("pids")) == (_kernel(), _pids()):
            return _started(int(other.get("pid", 0))) == other.get("started")
        print(f"osjax: waiting {SILENT_S:g} s to see whether {_name(other)} still lives", file=sys.stderr, flush=True)
        end = time.monotonic() + SILENT_S
        while time.monotonic() < end:
            now = self.read()
            if not now or now.get("token") != other.get("token"):
                return bool(now)
            if now.get("beat") != other.get("beat"):
                return True
            time.sleep(min(0.5, SILENT_S / 4))
        return False

    def make(self, settle: bool) -> None:
        """Write that it is ours. settle: wait until the last of several that do so at once can be seen."""
        self._put()
        self._made = True
        if settle:
            time.sleep(SETTLE_S)

    @contextlib.contextmanager
    def beating(self) -> Iterator[None]:
        """A block in which the file counts up. Where it turns out to be another's by then, this process ends."""
        beats = threading.Thread(target=self._beat, name="owner", daemon=True)
        beats.start()
        try:
            yield
        finally:
            self._end.set()
            beats.join()

    def _beat(self) -> None:
        while not self._end.wait(BEAT_S):
            try:
                other = self.read()
            except Exception:  # stores have errors of their own; they must not end the beats
                continue
            if other and other.get("token") != self.mine["token"]:
                # We slept for so long that another took over. Whatever we write now, a last checkpoint included, would
                # be into its work.
                print(f"osjax: {_name(other)} took {self.path.parent} over: this process ends", file=sys.stderr)
                sys.stderr.flush()
                os._exit(os.EX_TEMPFAIL)
            self.mine["beat"] += 1
            with contextlib.suppress(Exception):  # a full disk, a store out of reach: the next one may be written
                self._put()

    def _put(self) -> None:
        text = json.dumps(self.mine)
        if self._remote:  # objects are whole by themselves
            object_store.write(str(self.path), text.encode())
            return
        partial = Path(self.path).with_name(f"{self.path.name}.{os.getpid()}.part")
        try:
            partial.write_text(text)
            os.replace(partial, self.path)
        finally:
            partial.unlink(missing_ok=True)

    def drop(self) -> None:
        with contextlib.suppress(Exception):  # stores have errors of their own; a silent owner is passed over
            if self._made and self.read().get("token") == self.mine["token"]:
                self.path.unlink(missing_ok=True)


def _refusal(folder: epath.PathLike, other: Owner) -> str:
    return f"{folder} is in use by {_name(other)}: wait for its end or stop it, or name another folder"


def _name(other: Owner) -> str:
    if not other:
        return "another process"
    return f"{other.get('doing')}, process {other.get('pid')} on {other.get('host')} since {other.get('since')}"


def _kernel() -> str:
    """A name of the running kernel, the same in all its containers."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def _pids() -> str:
    """A name of the numbering of processes that this one is in: containers have their own."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process began, as the kernel counts, empty where there is none: a number may be another process by now."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
