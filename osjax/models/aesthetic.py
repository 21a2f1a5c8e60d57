"""How much people like an image, 1 to 10, from its CLIP embedding: the published predictor's linear layers.

No activation lies between them; the published predictor has none. Source: christophschuhmann's
improved-aesthetic-predictor (sac+logos+ava1-l14-linearMSE), which the original scores its clips with. Weights come from
the user's file (`weights/aesthetic.py`).
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from osjax.ops.layers import Linear
from osjax.types import Axis


@dataclass(frozen=True)
class AestheticConfig:
    """Sizes of the score. input_size: of an embedding (the published name). widths: of the layers before the last."""

    input_size: int = 768
    widths: tuple[int, ...] = (1024, 128, 64, 16)


class Aesthetic(nn.Module):
    """`apply({"params": p}, embeddings_BD)` -> scores (B,), float32. Embeddings are normalised here."""

    cfg: AestheticConfig

    @nn.compact
    def __call__(self, embeddings_BD: jax.Array) -> jax.Array:
        x = embeddings_BD.astype(jnp.float32)
        x = x / jnp.linalg.norm(x, axis=-1, keepdims=True)
        for n, width in enumerate((*self.cfg.widths, 1)):
            x = Linear((width,), (Axis.FEATURES,), (Axis.FEATURES,), name=f"layer{n}")(x)
        return x[:, 0]


def example_inputs(cfg: AestheticConfig) -> tuple:
    """Smallest inputs that initialise every parameter, as shapes."""
    return (jax.ShapeDtypeStruct((1, cfg.input_size), jnp.float32),)
