"""Flash attention's halves: splash runs here by interpretation and equals dense; cuDNN's calls are traced.

Both halves come from private functions of jax (`ops/flash.py` says why): these tests fail when those change.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo as fused

from osjax.ops import flash, kernels
from tests.ops.test_attention import worst

S, K, HEADS, D = 200, 300, 2, 128  # neither is a multiple of a block


def inputs(dtype):
    keys = jax.random.split(jax.random.key(0), 4)
    return [jax.random.normal(key, (1, n, HEADS, D)).astype(dtype) for key, n in zip(keys, (S, K, K, S), strict=True)]


def both_halves(kernel, count, dtype="float32"):
    q, k, v, dout = inputs(dtype)
    out, lse = kernel.forward(q, k, v, count)
    return out, lse, *kernel.backward(q, k, v, count, out, lse, dout)


@pytest.mark.parametrize("count", [None, 260, "traced"])
def test_splash_matches_dense_forward_and_backward(count):
    number = jnp.int32(260) if count == "traced" else count
    want = both_halves(kernels.DENSE, number)
    assert worst(both_halves(flash.SPLASH_ON_CPU, number), want) < 1e-5
    assert worst(both_halves(kernels.DENSE, 250), want) > 1e-2


def test_splash_in_bfloat16_stays_within_bfloat16_error():
    exact = both_halves(kernels.DENSE, None)
    own = worst(both_halves(kernels.DENSE, None, "bfloat16"), exact)
    assert 1e-4 < worst(both_halves(flash.SPLASH_ON_CPU, None, "bfloat16"), exact) < 1.5 * own


@pytest.mark.parametrize("count", [None, 260])
def test_cudnn_is_called_with_arguments_it_takes(count, monkeypatch):
    """Traced only: what a GPU computes is compared where there is one."""
    monkeypatch.setattr(fused, "check_cudnn_version", lambda: 91000)
    *qkv, dout = inputs("bfloat16")

    def loss(*qkv):
        return (kernels.attention(*qkv, flash.CUDNN, count) * dout).sum()

    out = jax.eval_shape(lambda *qkv: kernels.attention(*qkv, flash.CUDNN, count), *qkv)
    assert (out.shape, out.dtype) == (qkv[0].shape, jnp.bfloat16)
    program = jax.make_jaxpr(jax.grad(loss, (0, 1, 2)))(*qkv)
    assert [x.aval.shape for x in program.jaxpr.outvars] == [x.shape for x in qkv]
    names = str(program)
    assert "dot_product_attention_fwd_wrapper" in names and "dot_product_attention_bwd_wrapper" in names
    call = next(e for e in program.jaxpr.eqns if "dot_product_attention_fwd" in str(e.primitive))
    assert np.isclose(call.params["scale"], D**-0.5) and not call.params["sliding_window_length"]


@pytest.mark.parametrize("length, block", [(76_000, 896), (9_092, 1024), (128, 128), (130, 256)])
def test_splash_blocks_are_long_and_pad_little(length, block):
    assert flash._block(length) == block
    least = -(-length // flash.LANES) * flash.LANES
    assert least <= length + -length % block <= 1.005 * least
