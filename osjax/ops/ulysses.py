"""Ulysses: tokens become heads and heads become tokens (Jacobs et al., arXiv 2309.14509).

Between two all-to-alls every device holds all tokens of a few heads. Each device sends its q, k, v and output once,
whatever the number of devices; a ring sends k and v as many times as there are devices.
"""

from typing import NamedTuple

import jax


class Groups(NamedTuple):
    """`size` neighbours on mesh axis `axis`, which has `total` devices, exchange heads among themselves."""

    axis: str
    size: int
    total: int

    def members(self) -> list[list[int]] | None:
        if self.size == self.total:
            return None
        return [list(range(first, first + self.size)) for first in range(0, self.total, self.size)]

    def to_heads(self, x_BShd: jax.Array) -> jax.Array:
        """Some tokens of all heads -> all tokens of the group, in the order of its devices, of some heads."""
        return self._exchange(x_BShd, 2, 1)

    def to_tokens(self, x_BShd: jax.Array) -> jax.Array:
        """The inverse of `to_heads`."""
        return self._exchange(x_BShd, 1, 2)

    def _exchange(self, x, split, concat):
        return jax.lax.all_to_all(x, self.axis, split, concat, axis_index_groups=self.members(), tiled=True)

    def own_heads(self, x_BShd: jax.Array) -> jax.Array:
        """This device's heads of tokens that every device has."""
        heads = x_BShd.shape[2] // self.size
        mine = jax.lax.axis_index(self.axis) % self.size
        return jax.lax.dynamic_slice_in_dim(x_BShd, mine * heads, heads, axis=2)

    def all_heads(self, x_BShd: jax.Array) -> jax.Array:
        """The inverse of `own_heads`."""
        return jax.lax.all_gather(x_BShd, self.axis, axis=2, axis_index_groups=self.members(), tiled=True)
