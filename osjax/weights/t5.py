"""Where each tensor of a T5 v1.1 encoder checkpoint lives in the Flax tree."""

from osjax.models.t5 import T5Config
from osjax.weights.rules import LINEAR, SAME, Rule, reshape, transpose

ALL = slice(None)


def table(cfg: T5Config) -> list[Rule]:
    """The rules of the model `cfg`: every tensor of the encoder.

    The input embedding goes by two names; a file may hold either or both.
    """
    embedding = (cfg.vocab_size, cfg.d_model)
    rules = [
        Rule("shared.weight", embedding, ("embedding",)),
        Rule("encoder.embed_tokens.weight", embedding, ("embedding",), alias_of="shared.weight"),
        Rule(
            "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            (cfg.relative_attention_num_buckets, cfg.num_heads),
            ("relative_bias",),
        ),
        Rule("encoder.final_layer_norm.weight", (cfg.d_model,), ("final_norm", "scale")),
    ]
    for block in range(cfg.num_layers):
        rules += _block(cfg, block)
    return rules


def _block(cfg: T5Config, block: int) -> list[Rule]:
    D, F, h, d = cfg.d_model, cfg.d_ff, cfg.num_heads, cfg.d_kv
    root, at = f"encoder.block.{block}", (block,)
    attention, mlp = f"{root}.layer.0.SelfAttention", f"{root}.layer.1.DenseReluDense"
    heads_out = reshape((D, h * d), (D, h, d)) @ transpose(1, 0)
    rules = [
        Rule(f"{attention}.{p}.weight", (h * d, D), ("blocks", "qkv", "kernel"), heads_out, (block, ALL, i))
        for i, p in enumerate("qkv")
    ]
    heads_in = reshape((h * d, D), (h, d, D)) @ transpose(1, 0)
    return rules + [
        Rule(f"{attention}.o.weight", (D, h * d), ("blocks", "out", "kernel"), heads_in, at),
        Rule(f"{root}.layer.0.layer_norm.weight", (D,), ("blocks", "attention_norm", "scale"), SAME, at),
        Rule(f"{mlp}.wi_0.weight", (F, D), ("blocks", "gate", "kernel"), LINEAR, at),
        Rule(f"{mlp}.wi_1.weight", (F, D), ("blocks", "mlp_in", "kernel"), LINEAR, at),
        Rule(f"{mlp}.wo.weight", (D, F), ("blocks", "mlp_out", "kernel"), LINEAR, at),
        Rule(f"{root}.layer.1.layer_norm.weight", (D,), ("blocks", "mlp_norm", "scale"), SAME, at),
    ]
