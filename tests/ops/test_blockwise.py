"""Attention by heads and blocks of queries equals the dense oracle, forward and gradients, in blocks of every size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from osjax.ops import blockwise, kernels
from osjax.ops.attention import attend
from osjax.parallel import sharding
from tests.ops.test_attention import inputs, run, sequence, worst


def both_halves(kernel, count, dtype="float32", S=21):
    """Output and log-sum-exp of the forward half, gradients of the backward half."""
    q, k, v, dout = inputs(S, 3, dtype)
    out, lse = kernel.forward(q, k, v, count)
    return out, lse, *kernel.backward(q, k, v, count, out, lse, dout)


@pytest.fixture(params=[1, 4, 21], ids="{}-queries-at-once".format)
def queries_at_once(request, monkeypatch):
    monkeypatch.setattr(blockwise, "LOGITS", request.param * 21)


@pytest.mark.usefixtures("queries_at_once")
@pytest.mark.parametrize("count", [None, 16, "traced"])
def test_both_halves_match_the_dense_ones(count):
    number = jnp.int32(16) if count == "traced" else count
    want = both_halves(kernels.DENSE, number)
    assert worst(both_halves(blockwise.BLOCKWISE, number), want) < 1e-5
    assert worst(both_halves(blockwise.BLOCKWISE, 15 if count else 20), want) > 1e-2  # one key fewer


@pytest.mark.usefixtures("queries_at_once")
def test_keys_that_are_padding_get_no_gradient():
    *_, dk, dv = both_halves(blockwise.BLOCKWISE, 16)
    assert not np.any(dk[:, 16:]) and not np.any(dv[:, 16:])
    assert np.all(np.any(np.asarray(dk[:, :16]), (0, 2, 3)))


def test_bfloat16_stays_within_bfloat16_error():
    exact = both_halves(kernels.DENSE, None)
    own = worst(both_halves(kernels.DENSE, None, "bfloat16"), exact)
    assert 1e-4 < worst(both_halves(blockwise.BLOCKWISE, None, "bfloat16"), exact) < 1.5 * own


def test_attend_takes_it_by_name_with_padding_and_shared_tokens():
    valid = np.arange(21) != 3
    want = run(None, "dense", S=26, valid=valid, shared=5)
    assert worst(run(None, "blockwise", S=26, valid=valid, shared=5), want) < 1e-5
    assert worst(run(None, "blockwise", S=26, valid=np.arange(21) != 4, shared=5), want) > 1e-2


@pytest.mark.parametrize("impl", ["ring", "ulysses", "ulysses_ring", "blockwise"])
def test_devices_run_it_over_a_mesh(impl):
    q, k, v, cotangent = inputs(27, 4)

    def grads(impl, **how):
        def loss(*qkv):
            return (attend(*qkv, impl=impl, kernel="blockwise", **how) * cotangent).sum()

        with sharding.under(sequence(1 if impl == "blockwise" else 4)):
            return jax.jit(jax.grad(loss, (0, 1, 2)))(q, k, v)

    assert worst(grads(impl), grads("dense")) < 1e-5
    assert worst(grads(impl, valid=np.arange(27) != 3), grads("dense")) > 1e-2  # one key fewer


def test_logits_take_memory_linear_in_the_tokens():
    def temporaries(impl, S):
        def loss(q, k, v):
            return attend(q, k, v, impl=impl).sum()

        x = jax.ShapeDtypeStruct((1, S, 2, 8), jnp.float32)
        compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(x, x, x).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporaries("blockwise", 16384) < 2.2 * temporaries("blockwise", 8192)
    assert temporaries("dense", 16384) > 3.5 * temporaries("dense", 8192)
