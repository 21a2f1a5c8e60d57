"""Ring attention: keys and values visit every device of a ring, one part at a time (Liu et al., arXiv 2310.01889).

Each device keeps its queries and merges the outputs of the parts by their log-sum-exp. The backward pass sends keys and
values round once more, together with the sum of their gradients, so no device ever holds all keys.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from osjax.ops.kernels import ATTENTION_OUT, MASKED, Kernel


class Ring(NamedTuple):
    """Devices `stride` apart on mesh axis `axis`, `size` of them, form a ring.

    counts: how many keys of each device's part, the first ones, are real; None where all are.
    """

    axis: str
    size: int
    stride: int = 1
    counts: tuple[int, ...] | None = None

    def place(self) -> jax.Array:
        """This device's place in its ring."""
        return jax.lax.axis_index(self.axis) // self.stride

    def rotate(self, tree):
        """What each device holds, one place further."""
        total = self.size * self.stride
        pairs = [(i, (i + self.stride) % total) for i in range(total)]
        return jax.tree.map(lambda x: jax.lax.ppermute(x, self.axis, pairs), tree)

    def count(self, turn) -> jax.Array | None:
        """Real keys in the part that visits after `turn` rotations."""
        if self.counts is None:
            return None
        return jnp.asarray(self.counts, jnp.int32)[(self.place() - turn) % self.size]


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def attention(
    q_BShd: jax.Array,
    k_BShd: jax.Array,
    v_BShd: jax.Array,
    shared: tuple[jax.Array, jax.Array] | None,
    kernel: Kernel,
    ring: Ring,
) -> jax.Array:
    """Every query over the keys of the whole ring, and over `shared` keys and values that all devices have (or None).

    Runs inside shard_map; the result is (B, S, h, d) in q's dtype. kernel: attention of one device. ring: which ring,
    and how many keys of each device are real.
    """
    return _forward(q_BShd, k_BShd, v_BShd, shared, kernel, ring)[0]


def _forward(q, k, v, shared, kernel, ring):
    def part(k, v, count):
        if count is None:
            out, lse = kernel.forward(q, k, v, None)
            return out.astype(jnp.float32), lse
        out, lse = kernel.forward(q, k, v, jnp.maximum(count, 1))
        return out.astype(jnp.float32), jnp.where(count > 0, lse, MASKED)

    def turn(carry, i):
        k, v, total = carry
        coming = ring.rotate((k, v))  # does not wait for this turn's work
        return (*coming, _merge(total, part(k, v, ring.count(i)))), None

    empty = jnp.zeros(q.shape, jnp.float32), jnp.full((q.shape[0], q.shape[2], q.shape[1]), MASKED)
    total = empty if shared is None else part(*shared, None)
    (k_last, v_last, total), _ = jax.lax.scan(turn, (k, v, total), jnp.arange(ring.size - 1))
    out, lse = _merge(total, part(k_last, v_last, ring.count(ring.size - 1)))
    out, lse = (checkpoint_name(x, ATTENTION_OUT) for x in (out.astype(q.dtype), lse))
    return out, (q, k, v, shared, out, lse)


def _merge(a, b):
    """Attention over two sets of keys from attention over each."""
    (out_a, lse_a), (out_b, lse_b) = a, b
    lse_BhS = jnp.logaddexp(lse_a, lse_b)
    share_a, share_b = (jnp.exp(lse - lse_BhS).transpose(0, 2, 1)[..., None] for lse in (lse_a, lse_b))
    return out_a * share_a + out_b * share_b, lse_BhS


def _backward(kernel, ring, saved, dout):
    q, k, v, shared, out, lse = saved

    def part(k, v, count):
        real = None if count is None else jnp.maximum(count, 1)
        grads = kernel.backward(q, k, v, real, out, lse, dout)
        grads = [g.astype(jnp.float32) for g in grads]
        return grads if count is None else [jnp.where(count > 0, g, 0) for g in grads]

    def add(sums, grads):
        return jax.tree.map(jnp.add, sums, tuple(grads))

    def turn(carry, i):
        k, v, dkv, dq = carry
        coming = ring.rotate((k, v))
        dkv = ring.rotate(dkv)  # the sums of the turn before catch up with their keys
        dq_part, *dkv_part = part(k, v, ring.count(i))
        return (*coming, add(dkv, dkv_part), dq + dq_part), None

    dq, dshared = jnp.zeros(q.shape, jnp.float32), None
    if shared is not None:
        dq, *dshared = part(*shared, None)
        dshared = tuple(g.astype(x.dtype) for g, x in zip(dshared, shared, strict=True))
    zeros = tuple(jnp.zeros(x.shape, jnp.float32) for x in (k, v))
    (k_last, v_last, dkv, dq), _ = jax.lax.scan(turn, (k, v, zeros, dq), jnp.arange(ring.size - 1))
    dq_part, *dkv_part = part(k_last, v_last, ring.count(ring.size - 1))
    dk, dv = ring.rotate(add(ring.rotate(dkv), dkv_part))  # home
    return (dq + dq_part).astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), dshared


attention.defvjp(_forward, _backward)
