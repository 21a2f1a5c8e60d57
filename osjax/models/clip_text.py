"""The CLIP text tower: token ids to hidden states and one pooled vector.

Causal attention and no padding mask, as the original calls it. Source: Open-Sora
opensora/models/text/conditioner.py, and the CLIP-L checkpoint that it loads.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from osjax.errors import UserError
from osjax.models.clip_layer import Block, check, norm
from osjax.ops import stack
from osjax.ops.parameter import logical, parameter
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
        check(self)


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
        table = parameter(self, "embedding", logical(init, Axis.VOCAB, Axis.EMBED), (cfg.vocab_size, cfg.hidden_size))
        shape = (cfg.max_position_embeddings, cfg.hidden_size)
        places = parameter(self, "positions", logical(init, Axis.FEATURES, Axis.EMBED), shape)
        x = (jnp.take(table, input_ids_BM, axis=0) + places[None, :M]).astype(dtype)
        causal_MM = jnp.tril(jnp.ones((M, M), bool))
        x = stack.run(self, Block, (cfg,), "blocks", stack.Stack(cfg.num_hidden_layers, dtype), x, (causal_MM,))
        x = norm(cfg, "final_norm")(x)
        return x, jnp.take_along_axis(x, self._end(input_ids_BM)[:, None, None], axis=1)[:, 0]

    def _end(self, input_ids_BM: jax.Array) -> jax.Array:
        """Place of the first end token of each row."""
        if self.cfg.eos_token_id == LAST_TOKEN_IS_HIGHEST:
            return jnp.argmax(input_ids_BM, axis=1)
        return jnp.argmax(input_ids_BM == self.cfg.eos_token_id, axis=1)


def example_inputs(cfg: CLIPTextConfig) -> tuple:
    """Smallest inputs that initialise every parameter, as shapes."""
    return (jax.ShapeDtypeStruct((1, 1), jnp.int32),)
