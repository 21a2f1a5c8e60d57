"""Parameters that stay on the device, or that wait on the host and visit it while they are used (`offload`)."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from osjax.types import Tree


@dataclass(frozen=True)
class Stored:
    """Parameters on disk.

    shapes: ShapeDtypeStructs of what `read` gives. read: takes a tree of shardings and reads straight to their devices,
    or None and reads to the host. leaf: one of them by its path on the host, for those who want no more at once.
    """

    shapes: Tree
    read: Callable[[Tree], Tree]
    leaf: Callable[[tuple[str, ...]], np.ndarray]


class Placed:
    """A pytree of parameters.

    params: arrays of host or device, or `Stored` ones that are read on first use, so that a model which is not used, or
    not yet, takes no memory. shardings: where the arrays go; None is the default device, arrays there stay.
    """

    def __init__(self, params: Tree, shardings: Tree = None, offload: bool = False):
        self._shardings, self._offload = shardings, offload
        self._source, self._params = params, None

    def _loaded(self) -> Tree:
        if self._params is None:
            if isinstance(self._source, Stored):
                self._params = self._source.read(None if self._offload else self._or_default(self._source.shapes))
            else:
                self._params = jax.tree.map(np.asarray, self._source) if self._offload else self._put(self._source)
                self._source = None
        return self._params

    def _or_default(self, shapes: Tree) -> Tree:
        """The shardings, or the first device."""
        if self._shardings is not None:
            return self._shardings
        first = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        return jax.tree.map(lambda _: first, shapes)

    def _put(self, params: Tree) -> Tree:
        return jax.device_put(params) if self._shardings is None else jax.device_put(params, self._shardings)

    def shapes(self) -> Tree:
        """ShapeDtypeStructs with the shardings that the parameters have on the device; reads nothing."""
        params = self._source.shapes if isinstance(self._source, Stored) else self._source or self._params
        if self._shardings is None:
            return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
        return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), params, self._shardings)

    @contextmanager
    def on_device(self) -> Iterator[Tree]:
        """The parameters, on the device at least until the block ends; finish the work inside it."""
        if not self._offload:
            yield self._loaded()
            return
        visiting = jax.block_until_ready(self._put(self._loaded()))
        try:
            yield visiting
        finally:
            _delete(visiting)

    def release(self) -> None:
        """Give the memory of `Stored` parameters back; they are read again when they are next used."""
        if isinstance(self._source, Stored):
            _delete(self._params)
            self._params = None

    def free(self) -> None:
        """Give the memory back for good; arrays that were given are deleted, too."""
        _delete(self._params)
        self._params = self._source = None


def _delete(params: Tree) -> None:
    for leaf in jax.tree.leaves(params):
        if isinstance(leaf, jax.Array) and not leaf.is_deleted():
            leaf.delete()


def size_of(params: Tree) -> int:
    """Bytes that one device holds of params, a tree of arrays or of their shapes with shardings or without."""

    def one(x: Any) -> int:
        sharding = getattr(x, "sharding", None)
        shape = x.shape if sharding is None else sharding.shard_shape(x.shape)
        return math.prod(shape) * x.dtype.itemsize

    return sum(map(one, jax.tree.leaves(params)))
