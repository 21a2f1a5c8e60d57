"""How text and video tokens lie on the mesh axis `sequence`, and in what order they are joined.

Attention does not ask for the order of its keys. So the joined sequence is laid out device by device, and joining and
parting move nothing between devices. Five text tokens t and seven of video v on two devices, with padding as dots:

    device 0                     device 1
    t0 t1 t2 | v0 v1 v2 v3       t3 t4 .. | v4 v5 v6 ..

`text_tokens="replicated"` never joins them: every device holds all of the text, and attention takes it beside the
video (`shared` in `ops/attention.py`). That spares short prompts the padding and the exchange, and makes every device
compute the text.
Padding fills tokens up where the devices do not divide them. Attention leaves it out (`valid`), the rest computes it
in vain, and the model drops it at the end.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from osjax.parallel.sharding import constrain
from osjax.types import Axis


@dataclass(frozen=True)
class TokenLayout:
    """Numbers of tokens and of the devices that they lie on.

    text, video: real tokens. shards: devices along `sequence`. joined: text is split like video; else every device
    holds it whole, beside the sequence.
    """

    text: int
    video: int
    shards: int = 1
    joined: bool = True

    def pad_text(self, x: jax.Array) -> jax.Array:
        """Text tokens (B, text, ...) -> (B, M, ...), filled up with zeros where they are split."""
        return _pad(x, self.shards) if self.joined else x

    def pad_video(self, x: jax.Array) -> jax.Array:
        """Video tokens (B, video, ...) -> (B, N, ...), filled up with zeros."""
        return _pad(x, self.shards)

    def place_text(self, txt_BMD: jax.Array) -> jax.Array:
        """Text tokens, split over `sequence` or whole on every device; says so to the compiler."""
        return constrain(txt_BMD, Axis.BATCH, Axis.TOKENS if self.joined else None, Axis.ACT_EMBED)

    def place_video(self, img_BND: jax.Array) -> jax.Array:
        """Video tokens, or the joined sequence, split over `sequence`; says so to the compiler."""
        return constrain(img_BND, Axis.BATCH, Axis.TOKENS, Axis.ACT_EMBED)

    def streams(self, text: Any, video: Any) -> list:
        """What single-stream blocks run over: [the joined sequence], or [text, video]. Arrays, or trees of arrays."""
        return [jax.tree.map(self.join, text, video)] if self.joined else [text, video]

    def place_streams(self, streams: list[jax.Array]) -> list[jax.Array]:
        """`streams` where they belong on the mesh."""
        if self.joined:
            return [self.place_video(streams[0])]
        return [self.place_text(streams[0]), self.place_video(streams[1])]

    def video_of(self, streams: list[jax.Array]) -> jax.Array:
        """The video among `streams`, still padded."""
        return self.part(streams[0])[1] if self.joined else streams[1]

    def join(self, text: jax.Array, video: jax.Array) -> jax.Array:
        """Padded text and video tokens (B, M, ...), (B, N, ...) -> (B, S, ...)."""
        if self.shards == 1:
            return jnp.concatenate([text, video], 1)
        text, video = (x.reshape(x.shape[0], self.shards, -1, *x.shape[2:]) for x in (text, video))
        both = jnp.concatenate([text, video], 2)
        return both.reshape(both.shape[0], -1, *both.shape[3:])

    def part(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """A joined sequence (B, S, ...) -> its text and its video; the inverse of `join`."""
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
