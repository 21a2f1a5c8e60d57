"""Where each tensor of a CLIP text tower lives in the Flax tree."""

from osjax.models.clip_text import CLIPTextConfig
from osjax.weights.rules import LINEAR, SAME, Path, Rule, reshape, transpose

ALL = slice(None)


def table(cfg: CLIPTextConfig) -> list[Rule]:
    """Every tensor of the text tower, under the published names."""
    D, root = cfg.hidden_size, "text_model"
    rules = [
        Rule(f"{root}.embeddings.token_embedding.weight", (cfg.vocab_size, D), ("embedding",)),
        Rule(f"{root}.embeddings.position_embedding.weight", (cfg.max_position_embeddings, D), ("positions",)),
        *_norm(f"{root}.final_layer_norm", ("final_norm",), D),
    ]
    for layer in range(cfg.num_hidden_layers):
        rules += _layer(cfg, f"{root}.encoder.layers.{layer}", layer)
    return rules


def belongs(name: str) -> bool:
    """Whether a tensor of a published CLIP file is one of the text tower's weights.

    The file of openai/clip-vit-large-patch14 also holds the vision tower, the two projections, the temperature, and
    position ids that are no weights.
    """
    return name.startswith("text_model.") and not name.endswith(".position_ids")


def _layer(cfg: CLIPTextConfig, root: str, layer: int) -> list[Rule]:
    D, F, h = cfg.hidden_size, cfg.intermediate_size, cfg.num_attention_heads
    d, at = D // h, (layer,)
    rules = []
    for i, p in enumerate("qkv"):
        name, leaf = f"{root}.self_attn.{p}_proj", ("blocks", "qkv")
        weight = reshape((D, D), (D, h, d)) @ transpose(1, 0)
        rules.append(Rule(f"{name}.weight", (D, D), (*leaf, "kernel"), weight, (layer, ALL, i)))
        rules.append(Rule(f"{name}.bias", (D,), (*leaf, "bias"), reshape((D,), (h, d)), (layer, i)))
    out = reshape((D, D), (h, d, D)) @ transpose(1, 0)
    return rules + [
        Rule(f"{root}.self_attn.out_proj.weight", (D, D), ("blocks", "out", "kernel"), out, at),
        Rule(f"{root}.self_attn.out_proj.bias", (D,), ("blocks", "out", "bias"), SAME, at),
        Rule(f"{root}.mlp.fc1.weight", (F, D), ("blocks", "mlp_in", "kernel"), LINEAR, at),
        Rule(f"{root}.mlp.fc1.bias", (F,), ("blocks", "mlp_in", "bias"), SAME, at),
        Rule(f"{root}.mlp.fc2.weight", (D, F), ("blocks", "mlp_out", "kernel"), LINEAR, at),
        Rule(f"{root}.mlp.fc2.bias", (D,), ("blocks", "mlp_out", "bias"), SAME, at),
        *_norm(f"{root}.layer_norm1", ("blocks", "attention_norm"), D, at),
        *_norm(f"{root}.layer_norm2", ("blocks", "mlp_norm"), D, at),
    ]


def _norm(torch: str, leaf: Path, width: int, at: tuple = ()) -> list[Rule]:
    return [
        Rule(f"{torch}.weight", (width,), (*leaf, "scale"), SAME, at),
        Rule(f"{torch}.bias", (width,), (*leaf, "bias"), SAME, at),
    ]
