"""Splash attention's halves run here by interpretation and equal dense.

The backward half is a private function of jax.experimental (`ops/flash.py` says why): these tests fail when it changes.
"""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from osjax.ops import flash, kernels
from tests.ops.test_attention import worst

INTERPRETED = kernels.Kernel(*(partial(half, interpret=True) for half in (flash.SPLASH.forward, flash.SPLASH.backward)))
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
    assert worst(both_halves(INTERPRETED, number), want) < 1e-5
    assert worst(both_halves(kernels.DENSE, 250), want) > 1e-2


def test_splash_in_bfloat16_stays_within_bfloat16_error():
    exact = both_halves(kernels.DENSE, None)
    own = worst(both_halves(kernels.DENSE, None, "bfloat16"), exact)
    assert 1e-4 < worst(both_halves(INTERPRETED, None, "bfloat16"), exact) < 1.5 * own


@pytest.mark.parametrize("length, block", [(76_000, 896), (9_092, 1024), (128, 128), (130, 256)])
def test_splash_blocks_are_long_and_pad_little(length, block):
    assert flash._block(length) == block
    least = -(-length // flash.LANES) * flash.LANES
    assert least <= length + -length % block <= 1.005 * least
