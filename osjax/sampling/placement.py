"""Parameters that stay on the device, or that wait on the host and visit it while they are used (`offload`)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np


class Placed:
    """A pytree of parameters. shardings: where its arrays go; None is the default device, arrays there stay."""

    def __init__(self, params: Any, shardings: Any = None, offload: bool = False):
        self._shardings, self._offload = shardings, offload
        self._params = jax.tree.map(np.asarray, params) if offload else self._put(params)

    def _put(self, params: Any) -> Any:
        return jax.device_put(params) if self._shardings is None else jax.device_put(params, self._shardings)

    @contextmanager
    def on_device(self) -> Iterator[Any]:
        """The parameters, on the device at least until the block ends; finish the work inside it."""
        if not self._offload:
            yield self._params
            return
        visiting = jax.block_until_ready(self._put(self._params))
        try:
            yield visiting
        finally:
            _delete(visiting)

    def free(self) -> None:
        """Give the memory back for good."""
        _delete(self._params)
        self._params = None


def _delete(params: Any) -> None:
    for leaf in jax.tree.leaves(params):
        if isinstance(leaf, jax.Array) and not leaf.is_deleted():
            leaf.delete()
