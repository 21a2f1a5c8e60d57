"""Products of matrices at the rate of the machine."""

import jax
import jax.numpy as jnp

from osjax.ops.platform import platform


def product(a: jax.Array, b: jax.Array, dimensions: jax.lax.DotDimensionNumbers) -> jax.Array:
    """`jax.lax.dot_general(a, b, dimensions)` in a's dtype, summed in float32.

    On a CPU a bfloat16 product is asked for in float32 and then rounded: the same numbers, but only so XLA takes the
    processor's bfloat16 instructions, where it otherwise converts both operands to float32 first.
    """
    wide = jnp.float32 if a.dtype == jnp.bfloat16 and platform() == "cpu" else None
    return jax.lax.dot_general(a, b, dimensions, preferred_element_type=wide).astype(a.dtype)
