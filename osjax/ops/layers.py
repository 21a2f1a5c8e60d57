"""Dense layers and norms with logical axis names on every parameter. Norms compute in float32."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from osjax.parallel.sharding import constrain, gather
from osjax.types import Axis


def logical(init, *axes: str):
    """Initialiser whose parameter carries logical axis names."""
    return nn.with_logical_partitioning(init, axes)


class Contraction(NamedTuple):
    """in_axes, out_axes: logical names of the kernel's contracted and produced dimensions.

    reduce_dtype: in what the kernel's gradient is summed over tokens and devices.
    """

    in_axes: tuple[str, ...]
    out_axes: tuple[str, ...]
    reduce_dtype: str = "float32"


class Linear(nn.Module):
    """x_...(in) -> x_...(out) for kernels of any rank, such as (D, 3, h, d) or (h, d, D).

    in_axes, out_axes: logical names of the contracted and the produced dimensions, one each.
    features: sizes of the produced dimensions. reduce_dtype: see `Contraction`.
    """

    features: Sequence[int]
    in_axes: Sequence[str]
    out_axes: Sequence[str]
    use_bias: bool = True
    zero_init: bool = False
    dtype: jnp.dtype = jnp.float32
    reduce_dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        n_in = len(self.in_axes)
        in_shape, features = x.shape[-n_in:], tuple(self.features)
        init = nn.initializers.variance_scaling(
            1.0, "fan_avg", "uniform", tuple(range(n_in)), tuple(range(n_in, n_in + len(features)))
        )
        init = nn.initializers.zeros if self.zero_init else init
        kernel = self.param("kernel", logical(init, *self.in_axes, *self.out_axes), (*in_shape, *features))
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        if isinstance(kernel, jax.Array):
            how = Contraction(tuple(self.in_axes), tuple(self.out_axes), self.reduce_dtype)
            y = contract(x, kernel, how)
        else:  # quantised (sampling/int8.py), which has its own product
            y = jax.lax.dot_general(x, kernel, _dimensions(x.ndim, n_in))
        if self.use_bias:
            bias = self.param("bias", logical(nn.initializers.zeros, *self.out_axes), features)
            y = add_bias(y, bias.astype(self.dtype))
        return y


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def contract(x: jax.Array, kernel: jax.Array, how: Contraction) -> jax.Array:
    """x_...(in) times kernel (in..., out...), in x's dtype.

    The kernel is gathered from the devices that store it here, and once more in the backward pass, instead of being
    kept; its gradient is summed in `how.reduce_dtype` and scattered to where the kernel is stored.
    """
    return jax.lax.dot_general(x, gather(kernel, *how.in_axes, *how.out_axes), _dimensions(x.ndim, len(how.in_axes)))


def _dimensions(ndim: int, n_in: int):
    return (tuple(range(ndim - n_in, ndim)), tuple(range(n_in))), ((), ())


def _contract_forward(x, kernel, how):
    return contract(x, kernel, how), (x, kernel)


def _contract_backward(how, saved, dy):
    x, kernel = saved
    names, n_in = (*how.in_axes, *how.out_axes), len(how.in_axes)
    n_lead, n_out = x.ndim - n_in, len(how.out_axes)
    whole = gather(kernel, *names)
    over_out = tuple(range(dy.ndim - n_out, dy.ndim)), tuple(range(n_in, n_in + n_out))
    dx = jax.lax.dot_general(dy, whole, (over_out, ((), ())))
    over_lead = tuple(range(n_lead)), tuple(range(n_lead))
    reduce_dtype = jnp.promote_types(how.reduce_dtype, kernel.dtype)
    dkernel = jax.lax.dot_general(x, dy, (over_lead, ((), ())), preferred_element_type=reduce_dtype)
    return dx, constrain(dkernel, *names).astype(kernel.dtype)


contract.defvjp(_contract_forward, _contract_backward)


@jax.custom_vjp
def add_bias(y: jax.Array, bias: jax.Array) -> jax.Array:
    """y_...(out) + bias (out...); the gradient of the bias is summed in float32."""
    return y + bias.reshape((1,) * (y.ndim - bias.ndim) + bias.shape)


def _bias_backward(bias, dy):
    lead = tuple(range(dy.ndim - bias.ndim))
    return dy, dy.sum(lead, dtype=jnp.float32).astype(bias.dtype)


add_bias.defvjp(lambda y, bias: (add_bias(y, bias), bias), _bias_backward)


def layer_norm(x: jax.Array, eps: float = 1e-6) -> jax.Array:
    """Layer norm over the last axis without scale or bias, computed in float32, returned in x's dtype."""
    x32 = x.astype(jnp.float32)
    centred = x32 - x32.mean(-1, keepdims=True)
    return (centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + eps)).astype(x.dtype)


class RMSNorm(nn.Module):
    """RMS norm over the last axis: normalised in float32, cast back, then scaled (the original's order of casts)."""

    eps: float = 1e-6

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", logical(nn.initializers.ones, Axis.HEAD_DIM), (x.shape[-1],))
        x32 = x.astype(jnp.float32)
        normed = (x32 * jax.lax.rsqrt(jnp.square(x32).mean(-1, keepdims=True) + self.eps)).astype(x.dtype)
        return normed * scale.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
