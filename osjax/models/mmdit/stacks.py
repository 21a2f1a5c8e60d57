"""The model's two stacks of blocks as scans, in the dtypes and with the rematerialisation of the configuration.

A stack is one block whose parameters have a leading axis over the depth (`ops/stack.py`).
"""

import flax.linen as nn
import jax

from osjax.models.mmdit.blocks import Angle, DoubleStreamBlock, SingleStreamBlock
from osjax.models.mmdit.tokens import TokenLayout
from osjax.ops import stack


def double(
    model: nn.Module,
    layout: TokenLayout,
    tokens: tuple[jax.Array, jax.Array],
    vec_BD: jax.Array,
    angles: tuple[Angle, Angle],
) -> tuple[jax.Array, jax.Array]:
    """All double-stream blocks; call it inside the compact method of `model`, which owns their parameters.

    tokens: (img_BND, txt_BMD), padded and placed as `layout` has it; the same comes back. vec_BD: time and pooled text.
    angles: of the video's and of the text's positions.
    """
    img_angle, txt_angle = angles
    return _run(model, DoubleStreamBlock, "double_blocks", layout, tokens, (vec_BD, txt_angle, img_angle))


def single(
    model: nn.Module, layout: TokenLayout, streams: list[jax.Array], vec_BD: jax.Array, angles: list[Angle]
) -> list[jax.Array]:
    """All single-stream blocks; call it inside the compact method of `model`, which owns their parameters.

    streams, angles: of `layout.streams`; the streams come back. vec_BD: time and pooled text.
    """
    return _run(model, SingleStreamBlock, "single_blocks", layout, streams, (vec_BD, *angles))


def _run(model, block, name, layout, carry, invariants):
    cfg, is_double = model.cfg, block is DoubleStreamBlock
    depth = cfg.depth if is_double else cfg.depth_single_blocks
    if not depth:
        return carry
    count = None if cfg.remat_blocks is None else cfg.remat_blocks[0 if is_double else 1]
    how = stack.Stack(depth, cfg.dtype, cfg.grad_reduce, cfg.remat, count)
    return stack.run(model, block, (cfg, layout), name, how, carry, invariants)
