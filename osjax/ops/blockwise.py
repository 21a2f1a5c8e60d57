"""Exact attention one head and some queries at a time, on any platform: logits take memory linear in the tokens.

The same idea as Rabe and Staats (arXiv 2112.05682), but every block of queries sees all keys at once, so nothing is
rescaled. On a CPU it is also the fastest: XLA runs products with batch axes at a fraction of the rate of plain ones,
and the logits of one head stay in the cache between the product that writes them and the one that reads them.
"""

import jax
import jax.numpy as jnp

from osjax.ops.kernels import MASKED, Kernel

LOGITS = 2**22  # at once, 16 MiB of float32


def _forward(q_BShd, k_BShd, v_BShd, count):
    keys, hidden = _keys(k_BShd, count)
    k_nKd, v_nKd = (_heads(x[:, :keys]) for x in (k_BShd, v_BShd))

    def head(arguments):
        q_blocks, k_Kd, v_Kd = arguments

        def block(q_Qd):
            logits_QK = _logits(q_Qd, k_Kd, hidden)
            highest = logits_QK.max(-1, keepdims=True)
            weights = jnp.exp(logits_QK - highest)
            total = weights.sum(-1, keepdims=True)
            return _times(weights.astype(v_Kd.dtype), v_Kd, 1, 0) / total, (highest + jnp.log(total))[:, 0]

        return jax.lax.map(block, q_blocks)

    B, S, h, _ = q_BShd.shape
    out, lse = jax.lax.map(head, (_queries(q_BShd, keys), k_nKd, v_nKd))
    return _tokens(out, q_BShd), lse.reshape(B, h, -1)[:, :, :S]


def _backward(q_BShd, k_BShd, v_BShd, count, out, lse_BhS, dout):
    keys, hidden = _keys(k_BShd, count)
    k_nKd, v_nKd = (_heads(x[:, :keys]) for x in (k_BShd, v_BShd))
    delta_BhS = jnp.einsum("bqhd,bqhd->bhq", dout, out.astype(dout.dtype), preferred_element_type=jnp.float32)
    rows = [_queries(x, keys) for x in (q_BShd, dout)]
    rows += [_queries(x.transpose(0, 2, 1)[..., None], keys) for x in (lse_BhS, delta_BhS)]

    def head(arguments):
        *rows, k_Kd, v_Kd = arguments

        def block(sums, rows):
            q_Qd, dout_Qd, lse_Q1, delta_Q1 = rows
            weights_QK = jnp.exp(_logits(q_Qd, k_Kd, hidden) - lse_Q1)
            dlogits = weights_QK * (_times(dout_Qd, v_Kd, 1, 1) - delta_Q1) * q_Qd.shape[-1] ** -0.5
            dlogits, weights = dlogits.astype(q_Qd.dtype), weights_QK.astype(dout_Qd.dtype)
            parts = _times(dlogits, q_Qd, 0, 0), _times(weights, dout_Qd, 0, 0)
            return jax.tree.map(jnp.add, sums, parts), _times(dlogits, k_Kd, 1, 0)

        zeros = tuple(jnp.zeros(x.shape, jnp.float32) for x in (k_Kd, v_Kd))
        (dk_Kd, dv_Kd), dq = jax.lax.scan(block, zeros, tuple(rows))
        return dq, dk_Kd, dv_Kd

    dq, dk, dv = jax.lax.map(head, (*rows, k_nKd, v_nKd))
    return _tokens(dq, q_BShd), _tokens(dk, k_BShd), _tokens(dv, v_BShd)


BLOCKWISE = Kernel(_forward, _backward)


def _times(a, b, of_a, of_b):
    """The sum of products over one axis of each matrix, in float32."""
    return jax.lax.dot_general(a, b, (((of_a,), (of_b,)), ((), ())), preferred_element_type=jnp.float32)


def _logits(q_Qd, k_Kd, hidden_K):
    logits_QK = _times(q_Qd, k_Kd, 1, 1) * q_Qd.shape[-1] ** -0.5
    return logits_QK if hidden_K is None else jnp.where(hidden_K, MASKED, logits_QK)


def _keys(k_BShd, count):
    """How many keys are read, and which of them are padding; None: none, what is known to be padding is left out."""
    if isinstance(count, jax.Array):
        return k_BShd.shape[1], jnp.arange(k_BShd.shape[1]) >= count
    return (k_BShd.shape[1] if count is None else count), None


def _heads(x_BShd):
    """(B * h, S, d)"""
    x = x_BShd.transpose(0, 2, 1, 3)
    return x.reshape(-1, *x.shape[2:])


def _queries(x_BShd, keys):
    """(B * h, blocks, queries, d), with zeros behind the last: their gradients are zero too."""
    x_nSd = _heads(x_BShd)
    n, S, d = x_nSd.shape
    blocks = -(-S // max(1, LOGITS // keys))
    size = -(-S // blocks)
    return jnp.pad(x_nSd, ((0, 0), (0, blocks * size - S), (0, 0))).reshape(n, blocks, size, d)


def _tokens(x, like_BShd):
    """Back from heads and blocks, without what was added; zeros for keys that were left out."""
    B, S, h, d = like_BShd.shape
    x_BhSd = x.reshape(B, h, -1, d)[:, :, :S]
    return jnp.pad(x_BhSd, ((0, 0), (0, 0), (0, S - x_BhSd.shape[2]), (0, 0))).transpose(0, 2, 1, 3)
