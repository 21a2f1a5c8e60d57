"""Attention under one signature: `attend(q, k, v, impl=...)`. What an implementation cannot do raises."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec

from osjax.errors import UserError
from osjax.ops import flash, kernels, ring
from osjax.ops.blockwise import BLOCKWISE
from osjax.ops.ulysses import Groups
from osjax.parallel.sharding import partition, ways
from osjax.types import Axis

WHOLE = ("flash", "blockwise")  # a device holds all tokens of its clips and heads
IMPLEMENTATIONS = ("dense", *WHOLE, "ring", "ulysses", "ulysses_ring")
KERNELS = ("flash", "blockwise", "dense")
SEQUENCE = "sequence"  # mesh axis that splits tokens

Triple = tuple[jax.Array, jax.Array, jax.Array]


def attend(
    q_BShd: jax.Array,
    k_BShd: jax.Array,
    v_BShd: jax.Array,
    *,
    impl: str = "dense",
    kernel: str = "flash",
    valid: np.ndarray | None = None,
    shared: Triple | None = None,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """Softmax attention of every query over every key, scaled by d ** -0.5; returns (B, S, h, d) in q's dtype.

    impl: "dense"         float32 softmax, quadratic memory: the oracle.
          "flash"         cuDNN on a GPU (bfloat16 or float16), splash on a TPU; tokens whole on every device.
          "blockwise"     the same on any platform and in any dtype, by plain products: the choice on a CPU.
          "ulysses"       tokens split over the mesh axis `sequence`, which must divide the heads of a device.
          "ring"          the same for any number of heads, with more bytes moved.
          "ulysses_ring"  Ulysses among as many devices as the heads allow, and a ring over such groups.
    kernel: what each device runs inside the last three, "flash", "blockwise" or "dense".
    valid: (S,) bool, which keys are real; None: all. Outputs of other tokens mean nothing.
    shared: q, k, v (B, M, h, d) of tokens that every device of `sequence` holds whole, such as text. They attend and
        are attended to like the others; the result is then a pair, their output second.
    UserError for what an implementation cannot do; the message names one that can.
    """
    if impl not in IMPLEMENTATIONS:
        raise UserError(f"unknown attention {impl!r}: use one of {', '.join(IMPLEMENTATIONS)}")
    valid = None if valid is None or np.all(valid) else np.asarray(valid)
    qkv = q_BShd, k_BShd, v_BShd
    if impl == "dense":
        out = _joined(partial(_dense, valid=valid), qkv, shared)
    else:
        out = _over_mesh(impl, kernel, qkv, valid, shared)
    return out if shared is not None else out[0]


def _joined(function, qkv: Triple, shared: Triple | None):
    """`function(q, k, v, shared first)` over both kinds of tokens as one sequence."""
    if shared is None:
        return function(*qkv, 0), None
    M = shared[0].shape[1]
    out = function(*(jnp.concatenate(pair, 1) for pair in zip(shared, qkv, strict=True)), M)
    return out[:, M:], out[:, :M]


def _dense(q, k, v, shared, valid):
    logits = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
    if valid is not None:
        real = np.concatenate([np.ones(shared, bool), valid])
        logits = jnp.where(real[None, None, None], logits, kernels.MASKED)
    weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
    return checkpoint_name(jnp.einsum("bhqk,bkhd->bqhd", weights, v), kernels.ATTENTION_OUT)


def _kernel(name, q):
    if name not in KERNELS:
        raise UserError(f"unknown attention kernel {name!r}: use one of {', '.join(KERNELS)}")
    return flash.choose(q) if name == "flash" else {"blockwise": BLOCKWISE, "dense": kernels.DENSE}[name]


def _local(kernel, valid):
    """Attention on one device that holds all tokens. Keys that are padding are hidden, or left out if not the last."""
    index = None if valid is None else np.flatnonzero(valid)
    is_last = valid is not None and not valid[len(index) :].any()

    def whole(q, k, v, shared):
        return kernels.attention(q, k, v, kernel, shared + len(index) if is_last else None)

    def run(qkv, shared):
        q, k, v = qkv
        if index is not None and not is_last:
            k, v = k[:, index], v[:, index]
        return _joined(whole, (q, k, v), shared)

    return run


def _ring(kernel, valid, size, stride):
    """Ring attention on one device; `valid` covers the tokens of the whole ring."""
    counts = order = None
    if valid is not None:
        parts = valid.reshape(size, -1)
        counts = tuple(int(n) for n in parts.sum(1))
        order = np.argsort(~parts, axis=1, kind="stable")  # real keys first
        order = None if np.array_equal(order, np.broadcast_to(np.arange(parts.shape[1]), order.shape)) else order
    setting = ring.Ring(SEQUENCE, size, stride, counts)

    def run(qkv, shared):
        q, k, v = qkv
        if order is not None:
            k, v = (jnp.take(x, jnp.asarray(order)[setting.place()], axis=1) for x in (k, v))
        if shared is None:
            return ring.attention(q, k, v, None, kernel, setting), None
        M = shared[0].shape[1]
        out = ring.attention(jnp.concatenate([shared[0], q], 1), k, v, shared[1:], kernel, setting)
        return out[:, M:], out[:, :M]

    return run


def _ulysses(groups, inner):
    """Exchange tokens for heads, run `inner`, exchange back."""

    def run(qkv, shared):
        heads = None if shared is None else tuple(map(groups.own_heads, shared))
        out, out_shared = inner(tuple(map(groups.to_heads, qkv)), heads)
        return groups.to_tokens(out), None if shared is None else groups.all_heads(out_shared)

    return run


def _over_mesh(impl, kernel, qkv, valid, shared):
    """One of the implementations that run per device, under shard_map where a mesh is in force."""
    q = qkv[0]
    count, S = ways(SEQUENCE), q.shape[1]
    chosen = _kernel(impl if impl in WHOLE else kernel, q)
    names = (Axis.BATCH, Axis.TOKENS, Axis.ACT_HEADS, None)
    missing = -S % count
    spec = partition(names, (q.shape[0], S + missing, *q.shape[2:]))
    if impl in WHOLE and count > 1:
        raise UserError(
            f'attention "{impl}" needs all tokens on every device, but the mesh has sequence={count}: use "ulysses" '
            '(or "ring" where the heads do not divide), or sequence=1'
        )
    if impl not in WHOLE and spec is None:
        raise UserError(
            f"attention {impl!r} runs over a mesh: trace it inside osjax.parallel.sharding.under(mesh), "
            'or use "flash", "blockwise" or "dense"'
        )
    if spec is None:
        return _local(chosen, valid)(qkv, shared)
    if missing:
        valid = np.pad(np.ones(S, bool) if valid is None else valid, (0, missing))
        qkv = tuple(jnp.pad(x, ((0, 0), (0, missing), (0, 0), (0, 0))) for x in qkv)
    heads = q.shape[2] // (1 if spec[2] is None else ways(spec[2]))
    run = _plan(impl, chosen, valid, count, heads)
    whole = PartitionSpec(spec[0], None, *spec[2:])
    specs = (spec,) * 3, None if shared is None else (whole,) * 3
    out_specs = spec, None if shared is None else whole
    out, out_shared = jax.shard_map(run, in_specs=specs, out_specs=out_specs, check_vma=False)(qkv, shared)
    return out[:, :S], out_shared


def _plan(impl, kernel, valid, count, heads):
    """What each device runs: (q, k, v), shared -> (out, out of shared)."""
    if impl in WHOLE:
        return _local(kernel, valid)
    if impl == "ring":
        return _ring(kernel, valid, count, 1)
    if impl == "ulysses":
        if heads % count:
            raise UserError(
                f'attention "ulysses" cannot split {heads} heads over sequence={count}: use "ulysses_ring" or "ring"'
            )
        return _ulysses(Groups(SEQUENCE, count, count), _local(kernel, valid))
    size = math.gcd(heads, count)
    if size == 1:
        raise UserError(
            f'attention "ulysses_ring" has nothing to exchange with {heads} heads, sequence={count}: use "ring"'
        )
    return _ulysses(Groups(SEQUENCE, size, count), _ring(kernel, valid, count // size, size))
