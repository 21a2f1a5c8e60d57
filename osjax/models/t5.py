"""The T5 v1.1 encoder: token ids to hidden states.

No attention mask: the original attends to padding like any other token. Source: Open-Sora
opensora/models/text/conditioner.py, and the T5 v1.1 checkpoints that it loads.
"""

import math
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from osjax.errors import UserError
from osjax.ops import stack
from osjax.ops.layers import Linear
from osjax.ops.parameter import logical, parameter
from osjax.types import Axis


@dataclass(frozen=True)
class T5Config:
    """Field names are those of the published config.json. Defaults: T5 v1.1 XXL, 4.8B parameters.

    dropout_rate: of the checkpoint's training; an encoder at inference has none. dtype: of activations; norms,
    relative bias and softmax are float32 whatever it is.
    """

    vocab_size: int = 32128
    d_model: int = 4096
    d_kv: int = 64
    d_ff: int = 10240
    num_layers: int = 24
    num_heads: int = 64
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6
    feed_forward_proj: str = "gated-gelu"
    dropout_rate: float = 0.1
    dtype: str = "float32"

    def __post_init__(self):
        for name in ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}: give 1 or more")
        if self.feed_forward_proj != "gated-gelu":
            raise UserError(
                f"feed_forward_proj {self.feed_forward_proj!r} is of another T5: use a v1.1 checkpoint (gated-gelu)"
            )


def buckets(length: int, num_buckets: int, max_distance: int) -> np.ndarray:
    """Bucket of every key position as seen from every query position: int32 (length, length), queries first.

    num_buckets: in all. max_distance: tokens, from which on all positions share the last bucket of their side.
    Half of the buckets look back, half ahead; half of each are exact distances, the rest grow with the logarithm.
    """
    relative = np.arange(length)[None] - np.arange(length)[:, None]
    side = num_buckets // 2
    exact = side // 2
    distance = np.abs(relative)
    # float32, as in the original: the logarithm decides on which side of a bucket's edge a distance falls.
    ratio = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(exact)) / np.float32(
        math.log(max_distance / exact)
    )
    far = np.minimum(exact + (ratio * np.float32(side - exact)).astype(np.int32), side - 1)
    return (np.where(relative > 0, side, 0) + np.where(distance < exact, distance, far)).astype(np.int32)


class Norm(nn.Module):
    """RMS norm, in float32, of the model width."""

    eps: float

    @nn.compact
    def __call__(self, x_BMD: jax.Array) -> jax.Array:
        scale = parameter(self, "scale", logical(nn.initializers.ones, Axis.NORM), (x_BMD.shape[-1],))
        x32 = x_BMD.astype(jnp.float32)
        normed = x32 * jax.lax.rsqrt(jnp.square(x32).mean(-1, keepdims=True) + self.eps)
        return normed.astype(x_BMD.dtype) * scale.astype(x_BMD.dtype)[None, None]


class Block(nn.Module):
    """Self-attention and gated feed-forward, each behind a norm and beside a residual."""

    cfg: T5Config

    @nn.compact
    def __call__(self, x_BMD: jax.Array, bias_hMM: jax.Array) -> tuple[jax.Array, None]:
        cfg, dtype = self.cfg, jnp.dtype(self.cfg.dtype)

        def linear(name, features, in_axes, out_axes):
            return Linear(features, in_axes, out_axes, use_bias=False, dtype=dtype, name=name)

        heads, axes = (3, cfg.num_heads, cfg.d_kv), (Axis.QKV, Axis.HEADS, Axis.HEAD_DIM)
        qkv = linear("qkv", heads, (Axis.EMBED,), axes)(Norm(cfg.layer_norm_epsilon, name="attention_norm")(x_BMD))
        q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        # No 1 / sqrt(d): T5 has it in the initialisation of q.
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=jnp.float32) + bias_hMM[None]
        mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores).astype(dtype), v)
        x = x_BMD + linear("out", (cfg.d_model,), (Axis.HEADS, Axis.HEAD_DIM), (Axis.EMBED,))(mixed)

        y = Norm(cfg.layer_norm_epsilon, name="mlp_norm")(x)
        gate = jax.nn.gelu(linear("gate", (cfg.d_ff,), (Axis.EMBED,), (Axis.MLP,))(y), approximate=True)
        y = gate * linear("mlp_in", (cfg.d_ff,), (Axis.EMBED,), (Axis.MLP,))(y)
        return x + linear("mlp_out", (cfg.d_model,), (Axis.MLP,), (Axis.EMBED,))(y), None


class T5Encoder(nn.Module):
    """Apply with `{"params": params}`."""

    cfg: T5Config

    @nn.compact
    def __call__(self, input_ids_BM: jax.Array) -> jax.Array:
        """Hidden states (B, M, d_model) of token ids."""
        cfg = self.cfg
        width = nn.initializers.normal(1.0)
        table = parameter(self, "embedding", logical(width, Axis.VOCAB, Axis.EMBED), (cfg.vocab_size, cfg.d_model))
        shape = (cfg.relative_attention_num_buckets, cfg.num_heads)
        relative = parameter(
            self, "relative_bias", logical(nn.initializers.normal(0.1), Axis.FEATURES, Axis.HEADS), shape
        )
        x = jnp.take(table, input_ids_BM, axis=0).astype(cfg.dtype)
        bias_hMM = self.position_bias(relative, input_ids_BM.shape[1])
        x = stack.run(self, Block, (cfg,), "blocks", stack.Stack(cfg.num_layers, jnp.dtype(cfg.dtype)), x, (bias_hMM,))
        return Norm(cfg.layer_norm_epsilon, name="final_norm")(x)

    def position_bias(self, relative_bias: jax.Array, length: int) -> jax.Array:
        """What every pair of positions adds to the scores of all blocks: float32 (heads, length, length)."""
        cfg = self.cfg
        which = buckets(length, cfg.relative_attention_num_buckets, cfg.relative_attention_max_distance)
        return relative_bias.astype(jnp.float32)[which].transpose(2, 0, 1)


def example_inputs(cfg: T5Config) -> tuple:
    """Smallest inputs that initialise every parameter, as shapes."""
    return (jax.ShapeDtypeStruct((1, 1), jnp.int32),)
