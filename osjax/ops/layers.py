"""Dense layers and norms with logical axis names on every parameter. Norms compute in float32."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from osjax.types import Axis


def logical(init, *axes: str):
    """Initialiser whose parameter carries logical axis names."""
    return nn.with_logical_partitioning(init, axes)


class Linear(nn.Module):
    """x_...(in) -> x_...(out) for kernels of any rank, such as (D, 3, h, d) or (h, d, D).

    in_axes, out_axes: logical names of the contracted and the produced dimensions, one each.
    features: sizes of the produced dimensions.
    """

    features: Sequence[int]
    in_axes: Sequence[str]
    out_axes: Sequence[str]
    use_bias: bool = True
    zero_init: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        n_in = len(self.in_axes)
        in_shape, features = x.shape[-n_in:], tuple(self.features)
        init = nn.initializers.variance_scaling(
            1.0, "fan_avg", "uniform", tuple(range(n_in)), tuple(range(n_in, n_in + len(features)))
        )
        init = nn.initializers.zeros if self.zero_init else init
        kernel = self.param("kernel", logical(init, *self.in_axes, *self.out_axes), (*in_shape, *features))
        contract = (tuple(range(x.ndim - n_in, x.ndim)), tuple(range(n_in)))
        y = jax.lax.dot_general(x.astype(self.dtype), kernel.astype(self.dtype), (contract, ((), ())))
        if self.use_bias:
            bias = self.param("bias", logical(nn.initializers.zeros, *self.out_axes), features)
            y = y + bias.astype(self.dtype).reshape((1,) * (y.ndim - len(features)) + features)
        return y


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
