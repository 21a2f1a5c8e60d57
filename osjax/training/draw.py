"""What a training step draws before noise and times: a condition mode for every clip, and which texts are dropped."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from osjax.conditioning import build, text
from osjax.models.autoencoder import Stride
from osjax.models.velocity import VideoInputs
from osjax.types import LatentBatch, Row


@dataclass(frozen=True)
class Draw:
    """`draw(rows, key)` -> the batch that the loss takes.

    inputs: what the video model is given. modes: their weights by name. stride: of the autoencoder. null: text states
    and pooled vector of no text. drop_t5, drop_clip: shares of texts that are replaced by it. guidance: the strength
    that a guidance-distilled model is told.
    """

    inputs: VideoInputs
    modes: Mapping[str, float]
    stride: Stride
    null: tuple[Any, Any]
    drop_t5: float = 0.0
    drop_clip: float = 0.0
    guidance: float = 1.0

    def __call__(self, rows: Row, key: jax.Array) -> LatentBatch:
        """The batch of these rows: `latents`, `txt`, `vec`, and the `references` of models with a condition.

        key: all that is drawn follows from it. Traceable.
        """
        key_mode, key_text = jax.random.split(key)
        B, *shape = rows["latents"].shape
        cond = None
        if self.inputs.condition:
            mode_B = build.draw_modes(key_mode, self.modes, B, shape[0], self.stride.causal, self.stride.time)
            cond = build.condition(mode_B, rows["references"], tuple(shape), self.stride.causal, self.stride.time)
        txt, vec = text.drop_text(key_text, rows["txt"], rows["vec"], *self.null, self.drop_t5, self.drop_clip)
        strength_B = jnp.full(B, self.guidance) if self.inputs.guidance else None
        if self.inputs.guidance_img:
            strength_B = jnp.full((B, 2), self.guidance)
        return LatentBatch(rows["latents"], txt, vec, cond, strength_B)
