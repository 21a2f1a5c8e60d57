"""One run a folder, whether a run is one process or many: process 0 holds the lock, and all hear whether it did."""

import contextlib
from collections.abc import Iterator, Sequence

import jax
from etils import epath

from osjax import lock
from osjax.errors import UserError
from osjax.parallel import exchange


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
        text = exchange.of_process_0(str(refusal or ""))
        if text:
            raise UserError(text, status=2)
        yield
