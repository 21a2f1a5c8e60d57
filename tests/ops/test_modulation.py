"""Norms, gates, GELU and rotation: gradients by hand equal autodiff of the formula, and keep no float32 tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from osjax.ops import modulation, rope
from tests.ops.test_attention import worst

B, S, D, HEADS = 2, 6, 64, 4


def normal(*shape, seed):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def layer_norm(x, shift, scale):
    centred = x - x.mean(-1, keepdims=True)
    return centred / jnp.sqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-6) * (1 + scale) + shift


def gelu(x):
    return 0.5 * x * (1 + jnp.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


TABLES = rope.tables(normal(B, S, D // HEADS // 2, seed=9))


def rotated_norm(x, scale):
    cos, sin = (t[:, :, None] for t in TABLES)
    y = x / jnp.sqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-6) * scale[None, None, None]
    return y * cos + jnp.concatenate(jnp.split(y, 2, -1)[::-1], -1) * sin


TOKENS, ROW = (B, S, D), (B, 1, D)
CASES = {
    "norm_modulate": (modulation.norm_modulate, layer_norm, (TOKENS, ROW, ROW)),
    "add_gated": (modulation.add_gated, lambda x, gate, y: x + gate * y, (TOKENS, ROW, TOKENS)),
    "gelu": (modulation.gelu, gelu, (TOKENS,)),
    "norm_rotate": (
        lambda x, s: rope.norm_rotate(x, s, *TABLES),
        rotated_norm,
        ((B, S, HEADS, D // HEADS), (D // HEADS,)),
    ),
}


def arguments(shapes, dtype="float32"):
    return [normal(*shape, seed=i).astype(dtype) for i, shape in enumerate(shapes)]


def output_and_gradients(function, arguments):
    out, pullback = jax.vjp(function, *arguments)
    return out, *pullback(normal(*out.shape, seed=7).astype(out.dtype))


def kept(function, arguments):
    """Types of what the gradient keeps that is as large as the tokens."""
    _, pullback = jax.vjp(function, *arguments)
    return [x.dtype for x in jax.tree.leaves(pullback) if getattr(x, "size", 0) >= arguments[0].size]


@pytest.mark.parametrize("case", CASES)
def test_gradients_equal_those_of_the_formula(case):
    function, formula, shapes = CASES[case]
    want = output_and_gradients(formula, arguments(shapes))
    assert worst(output_and_gradients(function, arguments(shapes)), want) < 1e-5
    other = arguments(shapes)
    other[0] = other[0].at[0, 0, 0].multiply(-1)
    assert worst(output_and_gradients(function, other), want) > 1e-3


@pytest.mark.parametrize("case", CASES)
def test_in_bfloat16_nothing_as_large_as_the_tokens_is_kept_in_float32(case):
    function, formula, shapes = CASES[case]
    tokens = arguments(shapes, "bfloat16")
    assert {*kept(function, tokens)} == {jnp.dtype("bfloat16")}

    def upcast(*args):  # what autodiff of the same formula, computed in float32, keeps
        return formula(*(x.astype(jnp.float32) for x in args)).astype(jnp.bfloat16)

    assert jnp.dtype("float32") in kept(upcast, tokens)
    assert worst(output_and_gradients(function, tokens), output_and_gradients(formula, arguments(shapes))) < 0.05
