"""Where each tensor of a CLIP text tower lives in the Flax tree."""

from osjax.models.clip_text import CLIPTextConfig
from osjax.weights.clip_layer import layer, norm
from osjax.weights.rules import Rule


def table(cfg: CLIPTextConfig) -> list[Rule]:
    """The rules of the model `cfg`: every tensor of the text tower, under the published names."""
    D, root = cfg.hidden_size, "text_model"
    rules = [
        Rule(f"{root}.embeddings.token_embedding.weight", (cfg.vocab_size, D), ("embedding",)),
        Rule(f"{root}.embeddings.position_embedding.weight", (cfg.max_position_embeddings, D), ("positions",)),
        *norm(f"{root}.final_layer_norm", ("final_norm",), D),
    ]
    for n in range(cfg.num_hidden_layers):
        rules += layer(cfg, f"{root}.encoder.layers.{n}", n)
    return rules


def belongs(name: str) -> bool:
    """Whether the tensor `name` of a published CLIP file is one of the text tower's weights.

    The file of openai/clip-vit-large-patch14 also holds the vision tower, the two projections, the temperature, and
    position ids that are no weights.
    """
    return name.startswith("text_model.") and not name.endswith(".position_ids")
