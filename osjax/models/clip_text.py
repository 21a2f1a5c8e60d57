"""The CLIP text tower: token ids to hidden states and one pooled vector.

Causal attention and no padding mask, as the original calls it. Source: Open-Sora
opensora/models/text/conditioner.py, and the CLIP-L checkpoint that it loads.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from osjax.errors import UserError
from osjax.ops import stack
from osjax.ops.layers import Linear, logical
from osjax.types import Axis

LAST_TOKEN_IS_HIGHEST = 2  # the eos_token_id that published configs state, though their end token is another


@dataclass(frozen=True)
class CLIPTextConfig:
    """Field names are those of the published config.json. Defaults: the text tower of CLIP-L, 123M parameters.

    eos_token_id: 2 stands for "the highest id of the vocabulary", as published configs have it. bos_token_id and
    pad_token_id belong to the tokenizer and change nothing here. dtype: of activations; norms and softmax are float32.
    """

    vocab_size: int = 49408
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    bos_token_id: int = 0
    pad_token_id: int = 1
    eos_token_id: int = LAST_TOKEN_IS_HIGHEST
    dtype: str = "float32"

    def __post_init__(self):
        if self.hidden_act != "quick_gelu":
            raise UserError(f"hidden_act {self.hidden_act!r} is of another CLIP: use a checkpoint with quick_gelu")
        if self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"hidden_size {self.hidden_size} does not divide into {self.num_attention_heads} attention heads"
            )


def quick_gelu(x: jax.Array) -> jax.Array:
    """x * sigmoid(1.702 x), the approximation that CLIP was trained with."""
    return x * jax.nn.sigmoid(1.702 * x)


def _norm(cfg: CLIPTextConfig, name: str) -> nn.LayerNorm:
    return nn.LayerNorm(
        cfg.layer_norm_eps,
        use_fast_variance=False,  # E[x^2] - E[x]^2 loses digits
        dtype=jnp.dtype(cfg.dtype),
        scale_init=logical(nn.initializers.ones, Axis.NORM),
        bias_init=logical(nn.initializers.zeros, Axis.NORM),
        name=name,
    )


class Block(nn.Module):
    """Causal self-attention and feed-forward, each behind a norm and beside a residual."""

    cfg: CLIPTextConfig

    @nn.compact
    def __call__(self, x_BMD: jax.Array, causal_MM: jax.Array) -> tuple[jax.Array, None]:
        cfg, dtype = self.cfg, jnp.dtype(self.cfg.dtype)
        h, d = cfg.num_attention_heads, cfg.hidden_size // cfg.num_attention_heads
        axes = (Axis.QKV, Axis.HEADS, Axis.HEAD_DIM)
        qkv = Linear((3, h, d), (Axis.EMBED,), axes, dtype=dtype, name="qkv")(_norm(cfg, "attention_norm")(x_BMD))
        q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=jnp.float32) * d**-0.5
        scores = jnp.where(causal_MM[None, None], scores, -jnp.inf)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores).astype(dtype), v)
        heads = (Axis.HEADS, Axis.HEAD_DIM)
        x = x_BMD + Linear((cfg.hidden_size,), heads, (Axis.EMBED,), dtype=dtype, name="out")(mixed)

        y = _norm(cfg, "mlp_norm")(x)
        y = Linear((cfg.intermediate_size,), (Axis.EMBED,), (Axis.MLP,), dtype=dtype, name="mlp_in")(y)
        y = Linear((cfg.hidden_size,), (Axis.MLP,), (Axis.EMBED,), dtype=dtype, name="mlp_out")(quick_gelu(y))
        return x + y, None


class CLIPText(nn.Module):
    """Apply with `{"params": params}`."""

    cfg: CLIPTextConfig

    @nn.compact
    def __call__(self, input_ids_BM: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(hidden states (B, M, D), pooled (B, D)): pooled is the state of each row's first end token.

        UserError for more tokens than the model has positions.
        """
        cfg, dtype = self.cfg, jnp.dtype(self.cfg.dtype)
        M = input_ids_BM.shape[1]
        if M > cfg.max_position_embeddings:
            raise UserError(f"{M} tokens are more than the {cfg.max_position_embeddings} positions of this CLIP")
        init = nn.initializers.normal(0.02)
        table = self.param("embedding", logical(init, Axis.VOCAB, Axis.EMBED), (cfg.vocab_size, cfg.hidden_size))
        shape = (cfg.max_position_embeddings, cfg.hidden_size)
        places = self.param("positions", logical(init, Axis.FEATURES, Axis.EMBED), shape)
        x = (jnp.take(table, input_ids_BM, axis=0) + places[None, :M]).astype(dtype)
        causal_MM = jnp.tril(jnp.ones((M, M), bool))
        x = stack.run(self, Block, (cfg,), "blocks", cfg.num_hidden_layers, x, (causal_MM,), dtype=dtype)
        x = _norm(cfg, "final_norm")(x)
        return x, jnp.take_along_axis(x, self._end(input_ids_BM)[:, None, None], axis=1)[:, 0]

    def _end(self, input_ids_BM: jax.Array) -> jax.Array:
        """Place of the first end token of each row."""
        if self.cfg.eos_token_id == LAST_TOKEN_IS_HIGHEST:
            return jnp.argmax(input_ids_BM, axis=1)
        return jnp.argmax(input_ids_BM == self.cfg.eos_token_id, axis=1)


def example_inputs(cfg: CLIPTextConfig) -> tuple:
    """Smallest inputs that initialise every parameter, as shapes."""
    return (jax.ShapeDtypeStruct((1, 1), jnp.int32),)
