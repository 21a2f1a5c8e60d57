"""The model's two stacks of blocks as scans, in the dtypes and with the rematerialisation of the configuration.

A stack is one block whose parameters have a leading axis over the depth (`ops/stack.py`).
"""

from dataclasses import dataclass

import flax.linen as nn
import jax

from osjax.models.mmdit.blocks import Angle, DoubleStreamBlock, Modulation, SingleStreamBlock
from osjax.models.mmdit.tokens import TokenLayout
from osjax.ops import stack
from osjax.ops.layers import ADAPTERS
from osjax.ops.modulation import norm_modulate

Tokens = tuple[jax.Array, jax.Array]  # img_BND, txt_BMD


@dataclass(frozen=True)
class Stacks:
    """The stacks of a model on its inputs; to be run inside the compact method of `model`, which owns the parameters.

    layout: of the tokens. vec_BD: time and pooled text. img_angle, txt_angle: of the video's and the text's positions.
    """

    model: nn.Module
    layout: TokenLayout
    vec_BD: jax.Array
    img_angle: Angle
    txt_angle: Angle

    def video(self, tokens: Tokens, first: int = 0) -> jax.Array:
        """The video behind all blocks, still padded.

        tokens: padded and placed as the layout has it. first: the double-stream block that they enter.
        """
        layout = self.layout
        img_BND, txt_BMD = self.double(tokens, (first, self.model.cfg.depth))
        streams, angles = layout.streams(txt_BMD, img_BND), layout.streams(self.txt_angle, self.img_angle)
        given = self.vec_BD, *angles
        return layout.video_of(_run(self.model, SingleStreamBlock, "single_blocks", layout, streams, given))

    def double(self, tokens: Tokens, span: tuple[int, int]) -> Tokens:
        """Tokens behind the double-stream blocks from span[0] up to, but without, span[1]."""
        given = self.vec_BD, self.txt_angle, self.img_angle
        return _run(self.model, DoubleStreamBlock, "double_blocks", self.layout, tokens, given, span)

    def first_input(self, img_BND: jax.Array) -> jax.Array:
        """The video as the attention of the first double-stream block takes it: normed and modulated."""
        own = {}
        for kind in ("params", ADAPTERS):
            if "img_mod" in (all_blocks := self.model.get_variable(kind, "double_blocks", {})):
                own[kind] = jax.tree.map(lambda x: x[0], all_blocks["img_mod"])
        shift, scale, *_ = Modulation(self.model.cfg, 6, parent=None).apply(own, self.vec_BD)
        return norm_modulate(img_BND, shift, scale)


def _run(model, block, name, layout, carry, invariants, span=None):
    cfg, is_double = model.cfg, block is DoubleStreamBlock
    depth = cfg.depth if is_double else cfg.depth_single_blocks
    first, last = span or (0, depth)
    if first == last:
        return carry
    count = None if cfg.remat_blocks is None else cfg.remat_blocks[0 if is_double else 1]
    part = None if (first, last) == (0, depth) else (first, last)
    how = stack.Stack(depth, cfg.dtype, cfg.grad_reduce, cfg.remat, count, part)
    return stack.run(model, block, (cfg, layout), name, how, carry, invariants)
