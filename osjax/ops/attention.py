"""Attention under one signature: `attend(q, k, v, impl=...)`. What an implementation cannot do raises."""

import jax
import jax.numpy as jnp

from osjax.errors import UserError

IMPLEMENTATIONS = ("dense", "flash")


def attend(q_BShd: jax.Array, k_BShd: jax.Array, v_BShd: jax.Array, *, impl: str = "dense") -> jax.Array:
    """Softmax attention of every query over every key, scaled by d ** -0.5; returns (B, S, h, d) in q's dtype.

    impl: "dense" (float32 softmax, quadratic memory: the oracle, and the choice on a CPU) or "flash" (cuDNN, on a GPU,
    bfloat16 or float16). UserError for another name, or for flash where cuDNN is not there or the dtype is float32.
    """
    if impl == "dense":
        return _dense(q_BShd, k_BShd, v_BShd)
    if impl == "flash":
        if jax.default_backend() != "gpu":
            raise UserError(f'attention "flash" needs a GPU, this is {jax.default_backend()}: use attention="dense"')
        if q_BShd.dtype == jnp.float32:
            raise UserError('attention "flash" needs bfloat16: set dtype="bfloat16" or use attention="dense"')
        return jax.nn.dot_product_attention(q_BShd, k_BShd, v_BShd, implementation="cudnn")
    raise UserError(f"unknown attention {impl!r}: use one of {', '.join(IMPLEMENTATIONS)}")


def _dense(q, k, v):
    scale = q.shape[-1] ** -0.5
    logits = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=jnp.float32) * scale
    weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v)
