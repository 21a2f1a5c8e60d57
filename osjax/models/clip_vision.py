"""The CLIP vision tower: images to embeddings in the space that CLIP shares with texts.

Source: the published openai/clip-vit-large-patch14 and its paper, Radford et al. 2021. Weights come from the user's
files (`weights/clip_vision.py`).
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from osjax.errors import UserError
from osjax.models.clip_layer import Block, check, norm
from osjax.ops import stack
from osjax.ops.layers import Linear
from osjax.ops.parameter import logical, parameter
from osjax.types import Axis

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of pixels in [0, 1]


@dataclass(frozen=True)
class CLIPVisionConfig:
    """Field names are those of the published config.json. Defaults: the vision tower of CLIP-L, 304M parameters.

    projection_dim: of an embedding. dtype: of activations; norms and softmax are float32.
    """

    hidden_size: int = 1024
    intermediate_size: int = 4096
    projection_dim: int = 768
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    image_size: int = 224
    patch_size: int = 14
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    dtype: str = "float32"

    def __post_init__(self):
        check(self)
        if self.image_size % self.patch_size:
            raise UserError(f"image_size {self.image_size} does not divide into patches of {self.patch_size}")

    @property
    def grid(self) -> int:
        """Patches along a side."""
        return self.image_size // self.patch_size


class CLIPVision(nn.Module):
    """`apply({"params": p}, x_BHWC)` -> embeddings (B, projection_dim), float32, not normalised.

    x: pixels in [-1, 1] of squares of `image_size`, else UserError.
    """

    cfg: CLIPVisionConfig

    @nn.compact
    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        cfg, dtype = self.cfg, jnp.dtype(self.cfg.dtype)
        B, H, W, _ = x_BHWC.shape
        n, p, D = cfg.grid, cfg.patch_size, cfg.hidden_size
        if (H, W) != (cfg.image_size, cfg.image_size):
            raise UserError(f"CLIP takes images of {cfg.image_size}x{cfg.image_size} pixels, got {H}x{W}")
        mean, std = (jnp.array(x)[None, None, None] for x in (MEAN, STD))
        pixels = ((x_BHWC.astype(jnp.float32) + 1) / 2 - mean) / std
        patches = pixels.reshape(B, n, p, n, p, 3).transpose(0, 1, 3, 2, 4, 5).reshape(B, n * n, p, p, 3)
        axes = (Axis.CONV_KERNEL, Axis.CONV_KERNEL, Axis.CONV_IN)
        embed = Linear((D,), axes, (Axis.EMBED,), use_bias=False, dtype=dtype, name="patch_embed")
        init = nn.initializers.normal(0.02)
        cls = parameter(self, "cls_token", logical(init, Axis.EMBED), (D,))
        places = parameter(self, "positions", logical(init, Axis.FEATURES, Axis.EMBED), (1 + n * n, D))
        first = jnp.broadcast_to(cls[None, None], (B, 1, D)).astype(dtype)
        x = jnp.concatenate([first, embed(patches.astype(dtype))], axis=1) + places[None].astype(dtype)
        x = norm(cfg, "first_norm")(x)
        x = stack.run(self, Block, (cfg,), "blocks", stack.Stack(cfg.num_hidden_layers, dtype), x, ())
        pooled = norm(cfg, "final_norm")(x[:, 0])
        into = Linear((cfg.projection_dim,), (Axis.EMBED,), (Axis.FEATURES,), use_bias=False, dtype=dtype, name="embed")
        return into(pooled).astype(jnp.float32)


def example_inputs(cfg: CLIPVisionConfig) -> tuple:
    """Smallest inputs that initialise every parameter, as shapes."""
    return (jax.ShapeDtypeStruct((1, cfg.image_size, cfg.image_size, 3), jnp.float32),)
