"""What a block does to its tokens between matrix products: modulated norm, gated sum and GELU.

Each is one pass forward and one backward, in float32 inside and the tokens' dtype outside. The hand-written gradients
keep only the inputs: autodiff would keep float32 copies of the tokens, and would sum gradients over tokens in bfloat16.
"""

from functools import partial

import jax
import jax.numpy as jnp

F32 = jnp.float32


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def norm_modulate(x_BSD: jax.Array, shift_B1D: jax.Array, scale_B1D: jax.Array, eps: float = 1e-6) -> jax.Array:
    """Layer norm over the last axis, without weights of its own, times 1 + scale, plus shift."""
    return _norm_modulate_forward(x_BSD, shift_B1D, scale_B1D, eps)[0]


def _norm_modulate_forward(x, shift, scale, eps):
    centred = x.astype(F32) - x.mean(-1, keepdims=True, dtype=F32)
    inverse_BS1 = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + eps)
    y = centred * inverse_BS1 * (1 + scale.astype(F32)) + shift.astype(F32)
    return y.astype(x.dtype), (x, shift, scale, inverse_BS1)


def _norm_modulate_backward(eps, saved, dy):
    x, shift, scale, inverse_BS1 = saved
    dy = dy.astype(F32)
    normed = (x.astype(F32) - x.mean(-1, keepdims=True, dtype=F32)) * inverse_BS1
    dnormed = dy * (1 + scale.astype(F32))
    along = (dnormed * normed).mean(-1, keepdims=True)
    dx = inverse_BS1 * (dnormed - dnormed.mean(-1, keepdims=True) - normed * along)
    dshift, dscale = dy.sum(1, keepdims=True), (dy * normed).sum(1, keepdims=True)
    return dx.astype(x.dtype), dshift.astype(shift.dtype), dscale.astype(scale.dtype)


norm_modulate.defvjp(_norm_modulate_forward, _norm_modulate_backward)


@jax.custom_vjp
def add_gated(x_BSD: jax.Array, gate_B1D: jax.Array, y_BSD: jax.Array) -> jax.Array:
    """x + gate * y."""
    return (x_BSD.astype(F32) + gate_B1D.astype(F32) * y_BSD.astype(F32)).astype(x_BSD.dtype)


def _add_gated_backward(saved, dout):
    gate, y = saved
    dgate = (dout.astype(F32) * y.astype(F32)).sum(1, keepdims=True)
    return dout, dgate.astype(gate.dtype), (dout.astype(F32) * gate.astype(F32)).astype(y.dtype)


add_gated.defvjp(lambda x, gate, y: (add_gated(x, gate, y), (gate, y)), _add_gated_backward)


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
    """The tanh form, which the original uses; the exact one differs by 7e-5."""
    return jax.nn.gelu(x.astype(F32), approximate=True).astype(x.dtype)


def _gelu_backward(x, dy):
    x32, c = x.astype(F32), (2 / jnp.pi) ** 0.5
    t = jnp.tanh(c * (x32 + 0.044715 * x32**3))
    slope = 0.5 * (1 + t) + 0.5 * x32 * (1 - t * t) * c * (1 + 3 * 0.044715 * x32 * x32)
    return ((dy.astype(F32) * slope).astype(x.dtype),)


gelu.defvjp(lambda x: (gelu(x), x), _gelu_backward)
