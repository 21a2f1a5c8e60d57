"""Where each tensor of a published DINOv2 file lives in the Flax tree, by facebookresearch/dinov2's own names.

`from_huggingface` gives the tensors of a file in the Hugging Face layout those names.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from osjax.models.dinov2 import DINOv2Config
from osjax.weights.rules import LINEAR, SAME, Op, Rule, reshape, transpose

ALL = slice(None)


def table(cfg: DINOv2Config) -> list[Rule]:
    """The rules of the model `cfg`: every tensor but the mask token, which only its own training uses."""
    D, p, places = cfg.embed_dim, cfg.patch_size, 1 + cfg.grid**2
    patch = transpose(2, 3, 1, 0)  # (out, in, h, w) -> (h, w, in, out)
    rules = [
        Rule("cls_token", (1, 1, D), ("cls_token",), reshape((1, 1, D), (D,))),
        Rule("pos_embed", (1, places, D), ("positions",), reshape((1, places, D), (places, D))),
        Rule("patch_embed.proj.weight", (D, 3, p, p), ("patch_embed", "kernel"), patch),
        Rule("patch_embed.proj.bias", (D,), ("patch_embed", "bias")),
        *_norm("norm", ("norm",), D),
    ]
    if n := cfg.num_register_tokens:
        rules.append(Rule("register_tokens", (1, n, D), ("registers",), reshape((1, n, D), (n, D))))
    for block in range(cfg.depth):
        rules += _block(cfg, block)
    return rules


def belongs(name: str) -> bool:
    """Whether the tensor `name` of a published file is one that features depend on."""
    return name not in ("mask_token", "embeddings.mask_token")


def is_huggingface(tensors: Mapping[str, Any]) -> bool:
    """Whether the tensors of a file have the names of the Hugging Face layout."""
    return "embeddings.cls_token" in tensors


def from_huggingface(tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The tensors of a Hugging Face file (Dinov2Model, Dinov2WithRegistersModel) under facebookresearch's names.

    tensors: those of the file by its names; q, k and v of each block are read and put together.
    What is missing or misshapen is found by `from_torch`, which takes the result.
    """
    renamed, split = {}, {}
    for name, tensor in tensors.items():
        if not belongs(name):
            continue
        for theirs, ours in _HUGGINGFACE:
            name = name.replace(theirs, ours)
        layer, _, kind = name.rpartition(".")
        if layer.endswith((".query", ".key", ".value")):
            root, _, which = layer.rpartition(".")
            split.setdefault(f"{root}.qkv.{kind}", {})[which] = np.asarray(tensor)
        else:
            renamed[name] = tensor
    for name, parts in split.items():
        renamed[name] = np.concatenate([parts[which] for which in ("query", "key", "value") if which in parts])
    return renamed


_HUGGINGFACE = (
    ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.", ""),
    ("encoder.layer.", "blocks."),
    ("attention.attention.", "attn."),
    ("attention.output.dense", "attn.proj"),
    ("layer_scale1.lambda1", "ls1.gamma"),
    ("layer_scale2.lambda1", "ls2.gamma"),
    ("mlp.weights_in", "mlp.w12"),
    ("mlp.weights_out", "mlp.w3"),
    ("layernorm.", "norm."),
)


def _norm(torch: str, leaf: tuple[str, ...], width: int, at: tuple = ()) -> list[Rule]:
    pairs = (("weight", "scale"), ("bias", "bias"))
    return [Rule(f"{torch}.{name}", (width,), (*leaf, ours), SAME, at) for name, ours in pairs]


def _block(cfg: DINOv2Config, block: int) -> list[Rule]:
    D, F, h = cfg.embed_dim, cfg.hidden, cfg.num_heads
    d, root, at = D // h, f"blocks.{block}", (block,)
    to_heads: Op = transpose(3, 0, 1, 2) @ reshape((3 * D, D), (3, h, d, D))
    from_heads = transpose(1, 2, 0) @ reshape((D, D), (D, h, d))
    rules = [
        *_norm(f"{root}.norm1", ("blocks", "norm1"), D, at),
        Rule(f"{root}.attn.qkv.weight", (3 * D, D), ("blocks", "qkv", "kernel"), to_heads, at),
        Rule(f"{root}.attn.qkv.bias", (3 * D,), ("blocks", "qkv", "bias"), reshape((3 * D,), (3, h, d)), at),
        Rule(f"{root}.attn.proj.weight", (D, D), ("blocks", "out", "kernel"), from_heads, at),
        Rule(f"{root}.attn.proj.bias", (D,), ("blocks", "out", "bias"), SAME, at),
        Rule(f"{root}.ls1.gamma", (D,), ("blocks", "scale1"), SAME, at),
        *_norm(f"{root}.norm2", ("blocks", "norm2"), D, at),
        Rule(f"{root}.ls2.gamma", (D,), ("blocks", "scale2"), SAME, at),
    ]
    narrow = "fc2" if cfg.ffn_layer == "mlp" else "w3"
    if cfg.ffn_layer == "mlp":
        rules.append(Rule(f"{root}.mlp.fc1.weight", (F, D), ("blocks", "mlp_in", "kernel"), LINEAR, at))
        rules.append(Rule(f"{root}.mlp.fc1.bias", (F,), ("blocks", "mlp_in", "bias"), SAME, at))
    else:  # gate and value lie one above the other in one tensor
        for leaf, rows in (("gate", slice(0, F)), ("mlp_in", slice(F, 2 * F))):
            weight = ("blocks", leaf, "kernel")
            rules.append(Rule(f"{root}.mlp.w12.weight", (2 * F, D), weight, LINEAR, at, part=(rows, ALL)))
            rules.append(Rule(f"{root}.mlp.w12.bias", (2 * F,), ("blocks", leaf, "bias"), SAME, at, part=(rows,)))
    return rules + [
        Rule(f"{root}.mlp.{narrow}.weight", (D, F), ("blocks", "mlp_out", "kernel"), LINEAR, at),
        Rule(f"{root}.mlp.{narrow}.bias", (D,), ("blocks", "mlp_out", "bias"), SAME, at),
    ]
