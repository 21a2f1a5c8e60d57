"""What one device does with the queries, keys and values it holds: a forward and a backward half, joined by gradients.

The halves are apart because ring attention runs them once per visiting part of the keys: the backward half is given the
output and the log-sum-exp over all keys, and then yields this part's share of the gradients.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

ATTENTION_OUT = "attention_out"  # checkpoint name of all that the backward half needs besides q, k and v
MASKED = -1e30  # finite, so that a part without a single key gives no NaN


class Kernel(NamedTuple):
    """forward(q_BShd, k_BShd, v_BShd, count) -> (out_BShd, lse_BhS): softmax attention scaled by d ** -0.5.

    backward(q, k, v, count, out, lse, dout) -> (dq, dk, dv) with out and lse over all keys, these and others.
    count: how many of the keys, the first ones, are real, int or int32 scalar; None: all of them. lse is float32.
    """

    forward: Callable
    backward: Callable


def _logits(q, k, count):
    logits_BhSK = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
    if count is None:
        return logits_BhSK
    real = jnp.arange(k.shape[1]) < count
    return jnp.where(real[None, None, None], logits_BhSK, MASKED)


def _dense_forward(q, k, v, count):
    logits = _logits(q, k, count)
    lse_BhS = jax.nn.logsumexp(logits, axis=-1)
    weights = jnp.exp(logits - lse_BhS[..., None])
    out = jnp.einsum("bhqk,bkhd->bqhd", weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
    return out, lse_BhS


def _dense_backward(q, k, v, count, out, lse, dout):
    einsum = partial(jnp.einsum, preferred_element_type=jnp.float32)
    weights = jnp.exp(_logits(q, k, count) - lse[..., None])
    delta_BhS = einsum("bqhd,bqhd->bhq", dout, out.astype(dout.dtype))
    dlogits = weights * (einsum("bqhd,bkhd->bhqk", dout, v) - delta_BhS[..., None]) * q.shape[-1] ** -0.5
    dlogits = dlogits.astype(q.dtype)
    dv = einsum("bhqk,bqhd->bkhd", weights.astype(dout.dtype), dout)
    return einsum("bhqk,bkhd->bqhd", dlogits, k), einsum("bhqk,bqhd->bkhd", dlogits, q), dv


DENSE = Kernel(_dense_forward, _dense_backward)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def attention(q_BShd: jax.Array, k_BShd: jax.Array, v_BShd: jax.Array, kernel: Kernel, count: int | None) -> jax.Array:
    """Every query over the first `count` keys (None: all) on one device, by `kernel`: (B, S, h, d) in q's dtype."""
    return _attention_forward(q_BShd, k_BShd, v_BShd, kernel, count)[0]


def _attention_forward(q, k, v, kernel, count):
    out, lse = kernel.forward(q, k, v, count)
    out, lse = (checkpoint_name(x, ATTENTION_OUT) for x in (out.astype(q.dtype), lse))
    return out, (q, k, v, out, lse)


def _attention_backward(kernel, count, saved, dout):
    q, k, v, out, lse = saved
    grads = kernel.backward(q, k, v, count, out, lse, dout)
    return tuple(grad.astype(x.dtype) for grad, x in zip(grads, (q, k, v), strict=True))


attention.defvjp(_attention_forward, _attention_backward)
