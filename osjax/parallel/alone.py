"""One run a folder, whether a run is one process or many: process 0 holds the lock, and all hear whether it did."""

import contextlib
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from osjax import lock
from osjax.errors import UserError

WORDS = 2048  # bytes of what process 0 tells


@contextlib.contextmanager
def alone(folders: Sequence[epath.PathLike], doing: str) -> Iterator[None]:
    """A block in which this run alone writes to some folders. All processes of the run enter it together.

    folders: local or URLs; the same for all processes. doing: the command. UserError, status 2, in every process while
    another run holds one of them.
    """
    with contextlib.ExitStack() as locks:
        refusal = None
        if jax.process_index() == 0:
            try:
                for folder in folders:
                    locks.enter_context(lock.held(folder, doing))
            except UserError as error:
                refusal = error
        if jax.process_count() > 1:
            text = _of_process_0(str(refusal or ""))
            refusal = UserError(text, status=2) if text else None
        if refusal:
            raise refusal
        yield


def _of_process_0(text: str) -> str:
    line = np.zeros(WORDS, np.uint8)
    data = text.encode()[:WORDS]
    line[: len(data)] = np.frombuffer(data, np.uint8)
    told = np.asarray(multihost_utils.broadcast_one_to_all(line))
    return told.tobytes().rstrip(b"\0").decode(errors="replace")
