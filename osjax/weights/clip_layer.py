"""Where each tensor of a block of either CLIP tower lives in the Flax tree."""

from osjax.models.clip_text import CLIPTextConfig
from osjax.models.clip_vision import CLIPVisionConfig
from osjax.weights.rules import LINEAR, SAME, Path, Rule, reshape, transpose

ALL = slice(None)


def layer(cfg: CLIPTextConfig | CLIPVisionConfig, root: str, n: int) -> list[Rule]:
    """The rules of block n, whose names begin with `root`. cfg: of either tower."""
    D, F, h = cfg.hidden_size, cfg.intermediate_size, cfg.num_attention_heads
    d, at = D // h, (n,)
    rules = []
    for i, p in enumerate("qkv"):
        name, leaf = f"{root}.self_attn.{p}_proj", ("blocks", "qkv")
        weight = reshape((D, D), (D, h, d)) @ transpose(1, 0)
        rules.append(Rule(f"{name}.weight", (D, D), (*leaf, "kernel"), weight, (n, ALL, i)))
        rules.append(Rule(f"{name}.bias", (D,), (*leaf, "bias"), reshape((D,), (h, d)), (n, i)))
    out = reshape((D, D), (h, d, D)) @ transpose(1, 0)
    return rules + [
        Rule(f"{root}.self_attn.out_proj.weight", (D, D), ("blocks", "out", "kernel"), out, at),
        Rule(f"{root}.self_attn.out_proj.bias", (D,), ("blocks", "out", "bias"), SAME, at),
        Rule(f"{root}.mlp.fc1.weight", (F, D), ("blocks", "mlp_in", "kernel"), LINEAR, at),
        Rule(f"{root}.mlp.fc1.bias", (F,), ("blocks", "mlp_in", "bias"), SAME, at),
        Rule(f"{root}.mlp.fc2.weight", (D, F), ("blocks", "mlp_out", "kernel"), LINEAR, at),
        Rule(f"{root}.mlp.fc2.bias", (D,), ("blocks", "mlp_out", "bias"), SAME, at),
        *norm(f"{root}.layer_norm1", ("blocks", "attention_norm"), D, at),
        *norm(f"{root}.layer_norm2", ("blocks", "mlp_norm"), D, at),
    ]


def norm(torch: str, leaf: Path, width: int, at: tuple = ()) -> list[Rule]:
    """The rules of a layer norm of this width. torch: its name in a file; leaf, at: its place in the Flax tree."""
    return [
        Rule(f"{torch}.weight", (width,), (*leaf, "scale"), SAME, at),
        Rule(f"{torch}.bias", (width,), (*leaf, "bias"), SAME, at),
    ]
