"""All that a model is told besides the latent, for every branch of guidance."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from osjax.models.velocity import Given
from osjax.types import Array

BRANCHES = 3  # 0 prompt and condition, 1 negative prompt and condition, 2 negative prompt without condition


class Inputs(NamedTuple):
    """All that the model is told besides the latent, float32.

    txt_2BMC, vec_2BC: text states and pooled vectors of the prompts, then of the negative prompts.
    cond_BTHWC: condition (mask first); None for models without. strength_B: for guidance-distilled models, else None.
    """

    txt_2BMC: Array
    vec_2BC: Array
    cond_BTHWC: Array | None = None
    strength_B: Array | None = None


def given(inputs: Inputs, branch: jax.Array) -> Given:
    """What the model is told in a call of this branch, an int32 scalar.

    One program makes all branches, so the branch is a traced number and what the model sees is chosen by value; without
    a condition the model sees zeros, as it did in training.
    """
    txt, vec = (text[jnp.minimum(branch, 1)] for text in (inputs.txt_2BMC, inputs.vec_2BC))
    cond = None if inputs.cond_BTHWC is None else jnp.where(branch < 2, inputs.cond_BTHWC, 0)
    return Given(txt, vec, cond, inputs.strength_B)
