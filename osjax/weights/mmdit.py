"""Weight map of the MMDiT, for split or fused qkv and half-rotation or interleaved rotary pairs.

The model runs one layout: fused qkv kernels (D, 3, h, d) and half rotation. Interleaved pairs (FLUX) become half
rotation by a permutation of the head dimension of q, k and their norm scales; v keeps its order.
"""

import numpy as np

from osjax.models.mmdit.config import MMDiTConfig
from osjax.weights import flux_diffusers
from osjax.weights.layout import FLUX, Layout
from osjax.weights.layout import LAYOUTS as LAYOUTS  # files come in all of them; families without have one
from osjax.weights.rules import LINEAR, SAME, Op, Path, Rule, reshape, take, transpose

ALL = slice(None)

# For `weights/init.py`. Layers between tokens and the model's width are taken over where they fit, else made as the
# model initialises them (the layer of the condition and the one at the end with zeros).
SCALES: tuple[Path, ...] = (("guidance_in",), ("guidance_img_in",))
BOUNDARY: tuple[Path, ...] = (("img_in",), ("cond_in",), ("final_layer", "linear"), *SCALES)
DROPPED = SCALES  # of a distilled model, where the video model learns guidance by dropout


def table(cfg: MMDiTConfig, layout: Layout) -> list[Rule]:
    """The rules for every tensor of the original's state dict (opensora/models/mmdit/model.py).

    cfg: of the model. layout: of the file.
    """
    D, token = cfg.hidden_size, cfg.in_channels
    if layout.diffusers:
        return flux_diffusers.of_flux(table(cfg, FLUX), D)
    rules = _linear("img_in", ("img_in",), token, D)
    rules += _embedder("time_in", 256, D) + _embedder("vector_in", cfg.vec_in_dim, D)
    if cfg.guidance_embed:
        rules += _embedder("guidance_in", 256, D)
    if cfg.guidance_img_embed:
        rules += _embedder("guidance_img_in", 256, D)
    if cfg.cond_embed:
        rules += _linear("cond_in", ("cond_in",), cfg.cond_channels, D)
    rules += _linear("txt_in", ("txt_in",), cfg.context_in_dim, D)
    for block in range(cfg.depth):
        rules += _double_block(cfg, layout, block)
    for block in range(cfg.depth_single_blocks):
        rules += _single_block(cfg, layout, block)
    rules += _linear("final_layer.linear", ("final_layer", "linear"), D, token)
    return rules + _linear("final_layer.adaLN_modulation.1", ("final_layer", "modulation"), D, 2 * D)


def _linear(torch: str, leaf: Path, n_in: int, n_out: int, at: tuple = ()) -> list[Rule]:
    return [
        Rule(f"{torch}.weight", (n_out, n_in), (*leaf, "kernel"), LINEAR, at),
        Rule(f"{torch}.bias", (n_out,), (*leaf, "bias"), SAME, at),
    ]


def _embedder(name: str, n_in: int, D: int) -> list[Rule]:
    rules = _linear(f"{name}.in_layer", (name, "in_layer"), n_in, D)
    return rules + _linear(f"{name}.out_layer", (name, "out_layer"), D, D)


def head_order(cfg: MMDiTConfig, layout: Layout) -> Op:
    """The change of the last axis, a head's dimensions, from the file's rotary layout to half rotation.

    cfg: of the model. layout: of the file.
    """
    if not layout.interleaved_rope:
        return SAME
    return take(np.concatenate([np.arange(0, cfg.head_dim, 2), np.arange(1, cfg.head_dim, 2)]), axis=-1)


def _projection(cfg: MMDiTConfig, layout: Layout, which: int) -> tuple[Op, Op]:
    """Ops for weight (D, D) -> (D, h, d) and bias (D,) -> (h, d) of q (0), k (1) or v (2)."""
    D, h, d = cfg.hidden_size, cfg.num_heads, cfg.head_dim
    order = head_order(cfg, layout) if which < 2 else SAME
    return order @ reshape((D, D), (D, h, d)) @ transpose(1, 0), order @ reshape((D,), (h, d))


def _qkv(cfg, layout, leaf: Path, block: int, tensors: list[tuple[str, int, int]], use_bias: bool) -> list[Rule]:
    """tensors: for q, k and v the torch name, the first row there and the number of rows of the whole tensor."""
    D, rules = cfg.hidden_size, []
    for which, (torch, first, rows) in enumerate(tensors):
        weight, bias = _projection(cfg, layout, which)
        part = (slice(first, first + D),)
        rules.append(Rule(f"{torch}.weight", (rows, D), (*leaf, "qkv", "kernel"), weight, (block, ALL, which), part))
        if use_bias:
            rules.append(Rule(f"{torch}.bias", (rows,), (*leaf, "qkv", "bias"), bias, (block, which), part))
    return rules


def _qk_norm(cfg, layout, torch: str, leaf: Path, block: int) -> list[Rule]:
    order = head_order(cfg, layout)
    return [
        Rule(f"{torch}.{name}.scale", (cfg.head_dim,), (*leaf, name, "scale"), order, (block,))
        for name in ("query_norm", "key_norm")
    ]


def _double_block(cfg: MMDiTConfig, layout: Layout, block: int) -> list[Rule]:
    D, F, root, rules = cfg.hidden_size, cfg.mlp_dim, f"double_blocks.{block}", []
    for name in ("img", "txt"):

        def leaf(part, name=name):
            return ("double_blocks", f"{name}_{part}")

        attn = f"{root}.{name}_attn"
        if layout.fused_qkv:
            tensors = [(f"{attn}.qkv", i * D, 3 * D) for i in range(3)]
        else:
            tensors = [(f"{attn}.{p}_proj", 0, D) for p in "qkv"]
        rules += _linear(f"{root}.{name}_mod.lin", (*leaf("mod"), "lin"), D, 6 * D, (block,))
        rules += _qkv(cfg, layout, leaf("attn"), block, tensors, cfg.qkv_bias)
        rules += _qk_norm(cfg, layout, f"{attn}.norm", leaf("attn"), block)
        rules += [
            Rule(f"{attn}.proj.weight", (D, D), (*leaf("proj"), "kernel"), _heads_in(cfg), (block,)),
            Rule(f"{attn}.proj.bias", (D,), (*leaf("proj"), "bias"), SAME, (block,)),
        ]
        rules += _linear(f"{root}.{name}_mlp.0", leaf("mlp_in"), D, F, (block,))
        rules += _linear(f"{root}.{name}_mlp.2", leaf("mlp_out"), F, D, (block,))
    return rules


def _heads_in(cfg: MMDiTConfig) -> Op:
    """(D, D) -> (h, d, D). Attention output keeps v's order of dimensions, so no rotary permutation here."""
    D = cfg.hidden_size
    return reshape((D, D), (cfg.num_heads, cfg.head_dim, D)) @ transpose(1, 0)


def _single_block(cfg: MMDiTConfig, layout: Layout, block: int) -> list[Rule]:
    D, F, root = cfg.hidden_size, cfg.mlp_dim, f"single_blocks.{block}"

    def leaf(*path):
        return ("single_blocks", *path)

    if layout.fused_qkv:  # one tensor: q, k, v, feed-forward
        mlp, first, rows = f"{root}.linear1", 3 * D, 3 * D + F
        tensors = [(mlp, i * D, rows) for i in range(3)]
    else:  # v and the feed-forward share a tensor
        mlp, first, rows = f"{root}.v_mlp", D, D + F
        tensors = [(f"{root}.q_proj", 0, D), (f"{root}.k_proj", 0, D), (mlp, 0, rows)]
    mlp_rows, at = (slice(first, rows),), (block,)
    linear2 = (D, D + F)
    return [
        *_qkv(cfg, layout, leaf("attn"), block, tensors, True),
        Rule(f"{mlp}.weight", (rows, D), leaf("mlp_in", "kernel"), LINEAR, at, mlp_rows),
        Rule(f"{mlp}.bias", (rows,), leaf("mlp_in", "bias"), SAME, at, mlp_rows),
        Rule(f"{root}.linear2.weight", linear2, leaf("proj", "kernel"), _heads_in(cfg), at, (ALL, slice(0, D))),
        Rule(f"{root}.linear2.weight", linear2, leaf("mlp_out", "kernel"), LINEAR, at, (ALL, slice(D, D + F))),
        Rule(f"{root}.linear2.bias", (D,), leaf("proj", "bias"), SAME, at),
        *_qk_norm(cfg, layout, f"{root}.norm", leaf("attn"), block),
        *_linear(f"{root}.modulation.lin", leaf("modulation", "lin"), D, 3 * D, at),
    ]
