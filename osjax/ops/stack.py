"""A stack of equal blocks as one scan, with rematerialisation by a named policy.

Scan keeps compile time flat in depth. What every block reads alike (the modulation vector, rotary angles) is
broadcast, not carried, so it is not saved once per block.
"""

import flax.linen as nn
import jax

from osjax.errors import UserError
from osjax.types import Axis

ATTENTION_OUT = "attention_out"  # checkpoint name that attention blocks give to their attention output

REMAT_POLICIES = {
    "none": None,  # keep every activation
    "full": jax.checkpoint_policies.nothing_saveable,  # keep only block inputs
    "save_attention": jax.checkpoint_policies.save_only_these_names(ATTENTION_OUT),  # full, without attention twice
}


def stack(block: type[nn.Module], depth: int, *, broadcast: int, remat: str = "none") -> type[nn.Module]:
    """A module class that runs `depth` blocks: `(carry, *broadcast inputs) -> (carry, None)`.

    Parameters gain a leading axis named `layers`. broadcast: how many inputs follow the carry.
    """
    if remat not in REMAT_POLICIES:
        raise UserError(f"unknown remat policy {remat!r}: use one of {', '.join(REMAT_POLICIES)}")
    if remat != "none":
        # Inside scan, common-subexpression elimination cannot undo the recomputation, so its guard only costs time.
        block = nn.remat(block, policy=REMAT_POLICIES[remat], prevent_cse=False)
    return nn.scan(
        block,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=(nn.broadcast,) * broadcast,
        length=depth,
        metadata_params={nn.PARTITION_NAME: Axis.LAYERS},
    )
