"""Where each tensor of a CLIP vision tower lives in the Flax tree."""

from osjax.models.clip_vision import CLIPVisionConfig
from osjax.weights.clip_layer import layer, norm
from osjax.weights.rules import LINEAR, Rule, transpose


def table(cfg: CLIPVisionConfig) -> list[Rule]:
    """The rules of the model `cfg`: every tensor of the vision tower and its projection, under the published names."""
    D, p, root = cfg.hidden_size, cfg.patch_size, "vision_model"
    patch = transpose(2, 3, 1, 0)  # (out, in, h, w) -> (h, w, in, out)
    rules = [
        Rule(f"{root}.embeddings.class_embedding", (D,), ("cls_token",)),
        Rule(f"{root}.embeddings.patch_embedding.weight", (D, 3, p, p), ("patch_embed", "kernel"), patch),
        Rule(f"{root}.embeddings.position_embedding.weight", (1 + cfg.grid**2, D), ("positions",)),
        *norm(f"{root}.pre_layrnorm", ("first_norm",), D),  # the published spelling
        *norm(f"{root}.post_layernorm", ("final_norm",), D),
        Rule("visual_projection.weight", (cfg.projection_dim, D), ("embed", "kernel"), LINEAR),
    ]
    for n in range(cfg.num_hidden_layers):
        rules += layer(cfg, f"{root}.encoder.layers.{n}", n)
    return rules


def belongs(name: str) -> bool:
    """Whether the tensor `name` of a published CLIP file is one of the vision tower's weights.

    What else is in such files, `weights/clip_text.py` says.
    """
    return name.startswith(("vision_model.", "visual_projection.")) and not name.endswith(".position_ids")
