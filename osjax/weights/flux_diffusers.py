"""The MMDiT's weight map under the names of diffusers' FluxTransformer2DModel.

The rules are those of the FLUX layout; every projection has a tensor of its own, and the last modulation holds scale
before shift. Source: names of diffusers' `scripts/convert_flux_to_diffusers.py` and `transformer_flux.py`.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from osjax.weights.rules import Op, Rule, take

MODULATION = ("final_layer", "modulation")
EMBEDDERS = {"time_in": "timestep_embedder", "vector_in": "text_embedder", "guidance_in": "guidance_embedder"}
PLAIN = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}
PLAIN |= {
    f"{ours}.{which}_layer": f"time_text_embed.{theirs}.linear_{number}"
    for ours, theirs in EMBEDDERS.items()
    for number, which in enumerate(("in", "out"), 1)
}
DOUBLE = {
    "img_mod.lin": "norm1.linear",
    "txt_mod.lin": "norm1_context.linear",
    "img_attn.norm.query_norm": "attn.norm_q",
    "img_attn.norm.key_norm": "attn.norm_k",
    "txt_attn.norm.query_norm": "attn.norm_added_q",
    "txt_attn.norm.key_norm": "attn.norm_added_k",
    "img_attn.proj": "attn.to_out.0",
    "txt_attn.proj": "attn.to_add_out",
    "img_mlp.0": "ff.net.0.proj",
    "img_mlp.2": "ff.net.2",
    "txt_mlp.0": "ff_context.net.0.proj",
    "txt_mlp.2": "ff_context.net.2",
}
SINGLE = {
    "modulation.lin": "norm.linear",
    "norm.query_norm": "attn.norm_q",
    "norm.key_norm": "attn.norm_k",
    "linear2": "proj_out",
}
PROJECTIONS = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
}


def of_flux(rules: Sequence[Rule], width: int) -> list[Rule]:
    """The rules of the FLUX layout under diffusers' names. width: of the model, for the rows of fused projections."""
    return [_renamed(rule, width) for rule in rules]


def halves_swapped(size: int) -> Op:
    """The op that changes the halves of the last axis, which has `size` values."""
    return take(np.roll(np.arange(size), size // 2), axis=-1)


def _renamed(rule: Rule, width: int) -> Rule:
    layer, _, kind = rule.torch.rpartition(".")
    kind = "weight" if kind == "scale" else kind
    block = re.fullmatch(r"(double|single)_blocks\.(\d+)\.(.+)", layer)
    if block is None:
        op = halves_swapped(rule.shape[0]) @ rule.op if rule.leaf[:-1] == MODULATION else rule.op
        return replace(rule, torch=f"{PLAIN.get(layer, layer)}.{kind}", op=op)
    side, number, part = block.groups()
    root = f"{'transformer_blocks' if side == 'double' else 'single_transformer_blocks'}.{number}"
    if part in PROJECTIONS:
        rows = rule.part[0]
        name = PROJECTIONS[part][min(rows.start // width, 3)]
        shape = (rows.stop - rows.start, *rule.shape[1:])
        return replace(rule, torch=f"{root}.{name}.{kind}", shape=shape, part=())
    return replace(rule, torch=f"{root}.{(DOUBLE if side == 'double' else SINGLE)[part]}.{kind}")
