"""Names of number formats in configs, one table for every key that takes one."""

import jax.numpy as jnp

from osjax.errors import UserError

DTYPES = ("float32", "bfloat16")


def named(name: str, key: str) -> jnp.dtype:
    """The dtype that a config key names. key: in dotted form, for the UserError of an unknown name."""
    if name not in DTYPES:
        raise UserError(f"{key} is {name!r}: use one of {', '.join(DTYPES)}", status=2)
    return jnp.dtype(name)
