"""What the two towers of CLIP share: a transformer block with its norm and activation.

Source: the published openai/clip-vit-large-patch14 and its paper, Radford et al. 2021.
"""

from typing import Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from osjax.errors import UserError
from osjax.ops.layers import Linear
from osjax.ops.parameter import logical
from osjax.types import Axis


class Tower(Protocol):
    """What the block reads of a tower's configuration: `CLIPTextConfig` and `CLIPVisionConfig` have it."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    hidden_act: str
    layer_norm_eps: float
    dtype: str


def check(cfg: Tower) -> None:
    """UserError for a tower's configuration that this block does not compute."""
    if cfg.hidden_act != "quick_gelu":
        raise UserError(f"hidden_act {cfg.hidden_act!r} is of another CLIP: use a checkpoint with quick_gelu")
    for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"):
        if getattr(cfg, name) < 1:
            raise UserError(f"{name} is {getattr(cfg, name)}: give 1 or more")
    if cfg.hidden_size % cfg.num_attention_heads:
        raise UserError(f"hidden_size {cfg.hidden_size} does not divide into {cfg.num_attention_heads} attention heads")


def quick_gelu(x: jax.Array) -> jax.Array:
    """x * sigmoid(1.702 x), the approximation that CLIP was trained with."""
    return x * jax.nn.sigmoid(1.702 * x)


def norm(cfg: Tower, name: str) -> nn.LayerNorm:
    """The layer norm `name` of a tower, with scale and bias, in the tower's dtype."""
    return nn.LayerNorm(
        cfg.layer_norm_eps,
        use_fast_variance=False,  # E[x^2] - E[x]^2 loses digits
        dtype=jnp.dtype(cfg.dtype),
        scale_init=logical(nn.initializers.ones, Axis.NORM),
        bias_init=logical(nn.initializers.zeros, Axis.NORM),
        name=name,
    )


class Block(nn.Module):
    """Self-attention and feed-forward, each behind a norm and beside a residual.

    cfg: of a tower. mask_MM: which tokens (columns) each token (row) sees; None: all.
    """

    cfg: Tower

    @nn.compact
    def __call__(self, x_BMD: jax.Array, mask_MM: jax.Array | None = None) -> tuple[jax.Array, None]:
        cfg, dtype = self.cfg, jnp.dtype(self.cfg.dtype)
        h, d = cfg.num_attention_heads, cfg.hidden_size // cfg.num_attention_heads
        axes = (Axis.QKV, Axis.HEADS, Axis.HEAD_DIM)
        qkv = Linear((3, h, d), (Axis.EMBED,), axes, dtype=dtype, name="qkv")(norm(cfg, "attention_norm")(x_BMD))
        q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=jnp.float32) * d**-0.5
        if mask_MM is not None:
            scores = jnp.where(mask_MM[None, None], scores, -jnp.inf)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores).astype(dtype), v)
        heads = (Axis.HEADS, Axis.HEAD_DIM)
        x = x_BMD + Linear((cfg.hidden_size,), heads, (Axis.EMBED,), dtype=dtype, name="out")(mixed)

        y = norm(cfg, "mlp_norm")(x)
        y = Linear((cfg.intermediate_size,), (Axis.EMBED,), (Axis.MLP,), dtype=dtype, name="mlp_in")(y)
        y = Linear((cfg.hidden_size,), (Axis.MLP,), (Axis.EMBED,), dtype=dtype, name="mlp_out")(quick_gelu(y))
        return x + y, None
