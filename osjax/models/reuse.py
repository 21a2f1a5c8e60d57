"""A call of a video model that may take over what its stack of blocks added to the video tokens in an earlier call.

From one step of sampling to the next the stack adds nearly the same. A call is told what it may expect of it, and
decides, from a signal that costs little, whether to run the blocks at all: under `lax.cond`, so that what is skipped
is not computed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from osjax.models import lora
from osjax.models.velocity import Given, Params, Size, VideoModel

SIGNALS = ("none", "input", "first_block")  # what a call looks at: nothing, the first block's input, or its output


@dataclass(frozen=True)
class Reuse:
    """What a call is told.

    signal: one of SIGNALS. skip(signal_BND): whether to skip the stack, a bool scalar; with the signal "none" it gets
    None. predicted_BND: what the stack is expected to add, (B, tokens, width) in the dtype of the model's tokens; None
    runs the stack whatever `skip` would say.
    """

    signal: str
    skip: Callable[[jax.Array | None], jax.Array]
    predicted_BND: jax.Array | None = None


class Reused(NamedTuple):
    """What a call gives.

    velocity_BNC: of packed latents. residual_BND: what the stack added, or was expected to add where it was skipped;
    with the signal "first_block" that is what all blocks behind the first added. signal_BND: what was looked at, None
    for "none". skipped: bool scalar.
    """

    velocity_BNC: jax.Array
    residual_BND: jax.Array
    signal_BND: jax.Array | None
    skipped: jax.Array


def of_packed(
    module: VideoModel, params: Params, x_BNC: jax.Array, size: Size, t_B: jax.Array, given: Given, reuse: Reuse
) -> Reused:
    """The velocity of packed latents as `velocity.of_packed` gives it, by a call that may skip the stack.

    module: a video model that has `velocity_reusing`. params, x_BNC, size, t_B, given: as `velocity.of_packed` takes
    them. reuse: what the call is told.
    """
    return module.apply(lora.variables(params), x_BNC, size, t_B, given, reuse, method="velocity_reusing")


def choose(
    base_BND: jax.Array, signal_BND: jax.Array | None, run: Callable[[], jax.Array], reuse: Reuse
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(tokens behind the stack, what it added, whether it was skipped), for the modules of video models.

    base_BND: tokens ahead of what may be skipped. signal_BND: as `Reused` has it. run: gives the tokens behind it.
    reuse: what the call is told.
    """

    def compute() -> tuple[jax.Array, jax.Array]:
        out_BND = run()
        return out_BND, out_BND - base_BND

    if reuse.predicted_BND is None:
        return *compute(), jnp.zeros((), bool)
    skipped, predicted_BND = reuse.skip(signal_BND), reuse.predicted_BND
    out_BND, residual_BND = jax.lax.cond(skipped, lambda: (base_BND + predicted_BND, predicted_BND), compute)
    return out_BND, residual_BND, skipped
