"""How text and video tokens lie on the mesh axis `sequence`, and in what order they are joined.

Attention does not ask for the order of its keys. So the joined sequence is laid out device by device - each holds its
share of the text, then its share of the video - and joining and parting move nothing between devices. Tokens that a
count of devices does not divide are filled up with padding, which attention leaves out.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class TokenLayout:
    """text, video: real tokens. shards: devices along `sequence`. joined: text is split like video; else every device
    holds it whole, beside the sequence."""

    text: int
    video: int
    shards: int = 1
    joined: bool = True

    def pad_text(self, x: jax.Array) -> jax.Array:
        return _pad(x, self.shards) if self.joined else x

    def pad_video(self, x: jax.Array) -> jax.Array:
        return _pad(x, self.shards)

    def join(self, text: jax.Array, video: jax.Array) -> jax.Array:
        """Padded text and video tokens (B, M, ...), (B, N, ...) -> (B, S, ...)."""
        if self.shards == 1:
            return jnp.concatenate([text, video], 1)
        text, video = (x.reshape(x.shape[0], self.shards, -1, *x.shape[2:]) for x in (text, video))
        both = jnp.concatenate([text, video], 2)
        return both.reshape(both.shape[0], -1, *both.shape[3:])

    def part(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The inverse of `join`."""
        M = -(-self.text // self.shards)  # of one device
        if self.shards == 1:
            return x[:, :M], x[:, M:]
        shares = x.reshape(x.shape[0], self.shards, -1, *x.shape[2:])
        return tuple(p.reshape(p.shape[0], -1, *p.shape[3:]) for p in (shares[:, :, :M], shares[:, :, M:]))

    def valid(self) -> np.ndarray:
        """Which tokens of the sequence that is split are real, (S,) bool."""
        text, video = (np.arange(-(-n // self.shards) * self.shards) < n for n in (self.text, self.video))
        if not self.joined:
            return video
        return np.concatenate([text.reshape(self.shards, -1), video.reshape(self.shards, -1)], 1).reshape(-1)


def _pad(x, shards):
    return jnp.pad(x, ((0, 0), (0, -x.shape[1] % shards)) + ((0, 0),) * (x.ndim - 2)) if x.shape[1] % shards else x
