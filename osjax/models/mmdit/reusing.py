"""The stacks of the MMDiT in a call that may skip them; which signal is what here. See models/reuse.py."""

import jax

from osjax.errors import UserError
from osjax.models.mmdit.stacks import Stacks, Tokens
from osjax.models.reuse import Reuse, choose


def run(blocks: Stacks, tokens: Tokens, reuse: Reuse) -> tuple[jax.Array, jax.Array, jax.Array | None, jax.Array]:
    """(video behind all blocks, what they added, the signal, whether they were skipped); padded as the layout has it.

    blocks: of the model. tokens: as they enter. reuse: what the call is told. UserError for a signal of the first block
    where the model has no double-stream block.
    """
    img_BND, _ = tokens
    if reuse.signal == "none":
        return _with(None, *choose(img_BND, None, lambda: blocks.video(tokens), reuse))
    if not blocks.model.cfg.depth:
        raise UserError("this model has no double-stream block to look at: use the cache magcache")
    if reuse.signal == "input":
        signal_BND = blocks.first_input(img_BND)
        return _with(signal_BND, *choose(img_BND, signal_BND, lambda: blocks.video(tokens), reuse))
    behind = blocks.double(tokens, (0, 1))
    signal_BND = behind[0] - img_BND
    return _with(signal_BND, *choose(behind[0], signal_BND, lambda: blocks.video(behind, first=1), reuse))


def _with(signal_BND, out_BND, residual_BND, skipped):
    return out_BND, residual_BND, signal_BND, skipped
