"""Dense layers and norms with logical axis names on every parameter. Norms compute in float32."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from osjax.ops.parameter import logical, parameter
from osjax.ops.product import product
from osjax.parallel.sharding import constrain, gather, scatter
from osjax.types import Axis

MASTER = "master"  # variable collection with the float32 kernels behind those that `params` holds in another dtype
ADAPTERS = "lora"  # variable collection of low-rank adapters, already scaled (models/lora.py)


class Contraction(NamedTuple):
    """How `contract` multiplies, and in what it sums the kernel's gradient.

    in_axes, out_axes: logical names of the kernel's contracted and produced dimensions.

    reduce_dtype: in what the kernel's gradient is summed over tokens and devices. grad_dtype: what it is then cast to.
    few_rows: x is (B, in) with far fewer rows than the kernel has: rows then move between devices, the kernel stays.
        Those that share a kernel's parts exchange their own rows; for its gradient every device sees all rows.
    """

    in_axes: tuple[str, ...]
    out_axes: tuple[str, ...]
    reduce_dtype: str
    grad_dtype: str
    few_rows: bool = False


class Linear(nn.Module):
    """x_...(in) -> x_...(out) for kernels of any rank, such as (D, 3, h, d) or (h, d, D).

    in_axes, out_axes: logical names of the contracted and the produced dimensions, one each.
    features: sizes of the produced dimensions. reduce_dtype: in what the kernel's
    gradient is summed, float32 or bfloat16. few_rows: see `Contraction`.
    """

    features: Sequence[int]
    in_axes: Sequence[str]
    out_axes: Sequence[str]
    use_bias: bool = True
    zero_init: bool = False
    dtype: jnp.dtype = jnp.float32
    reduce_dtype: str = "float32"
    few_rows: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        n_in = len(self.in_axes)
        in_shape, features = x.shape[-n_in:], tuple(self.features)
        init = nn.initializers.variance_scaling(
            1.0, "fan_avg", "uniform", tuple(range(n_in)), tuple(range(n_in, n_in + len(features)))
        )
        init = nn.initializers.zeros if self.zero_init else init
        kernel = parameter(self, "kernel", logical(init, *self.in_axes, *self.out_axes), (*in_shape, *features))
        x = x.astype(self.dtype)
        if not is_quantized(kernel):
            y = self._contract(x, jnp.asarray(kernel))
        else:
            how = Contraction(tuple(self.in_axes), tuple(self.out_axes), "float32", "float32", self.few_rows)
            y = contract_quantized(x, kernel.qvalue, kernel.scale.reshape(features), how)
        if self.has_variable(ADAPTERS, "a"):
            y = y + self._adapted(x, self.get_variable(ADAPTERS, "a"), self.get_variable(ADAPTERS, "b"))
        if self.use_bias:
            bias = parameter(self, "bias", logical(nn.initializers.zeros, *self.out_axes), features)
            y = add_bias(y, bias.astype(self.dtype))
        return y

    def _contract(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        cast = kernel.astype(self.dtype)
        learned = kernel if self.reduce_dtype == "float32" else cast
        if self.has_variable(MASTER, "kernel"):
            learned = self.get_variable(MASTER, "kernel")
        reduce_dtype = jnp.promote_types(self.reduce_dtype, self.dtype).name
        axes = tuple(self.in_axes), tuple(self.out_axes)
        how = Contraction(*axes, reduce_dtype, learned.dtype.name, self.few_rows)
        return contract(x, cast, learned, how)

    def _adapted(self, x: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
        """x times a (in..., r) times b (r, out...); q, k and v have an a and a b each: (in..., 3, r), (3, r, h, d)."""

        def times(x, kernel, in_axes, out_axes):
            how = Contraction(tuple(in_axes), tuple(out_axes), "float32", kernel.dtype.name)
            return contract(x, kernel.astype(x.dtype), kernel, how)

        if self.out_axes[0] != Axis.QKV:
            return times(times(x, a, self.in_axes, (Axis.RANK,)), b, (Axis.RANK,), self.out_axes)
        low = times(x, a, self.in_axes, (Axis.QKV, Axis.RANK))
        parts = [times(low[..., i, :], b[i], (Axis.RANK,), self.out_axes[1:]) for i in range(len(b))]
        return jnp.stack(parts, -len(self.out_axes))


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def contract(x: jax.Array, kernel: jax.Array, learned: jax.Array, how: Contraction) -> jax.Array:
    """x_...(in) times kernel (in..., out...), in x's dtype; the gradient of the kernel goes to `learned`.

    Written as an ordinary product, this would do two things that cost a large model much. Its gradient would have the
    kernel's dtype: bfloat16 sums over tokens and devices lose what float32 ones keep. And the compiler would choose
    where the kernel, which is stored in parts on many devices, comes together and how long it stays.

    kernel: gets no gradient here; passed through `stop_gradient`, it would be kept a second time by a scan over blocks.
    learned: the same values, perhaps in a wider dtype, of which nothing is read: it is there to take the gradient,
        which may so be float32, and summed in float32, although the kernel is bfloat16.
    how: names of the axes and dtypes. The kernel is gathered from the devices that store it, and once more in the
        backward pass instead of being kept; its gradient is scattered to where the kernel is stored.
    """
    dimensions = _dimensions(x.ndim, len(how.in_axes))
    if not how.few_rows:
        return product(x, gather(kernel, *how.in_axes, *how.out_axes), dimensions)
    x = _split_as_kernel(x, Axis.GROUP_ROWS, how)
    y = jax.lax.dot_general(x, kernel, dimensions, preferred_element_type=jnp.float32)
    return constrain(y, Axis.BATCH, *how.out_axes).astype(x.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def contract_quantized(x: jax.Array, values: jax.Array, scale: jax.Array, how: Contraction) -> jax.Array:
    """x_...(in) times the kernel values (in..., out...) * scale (out...), in x's dtype; neither gets a gradient.

    values: int8, which x's dtype holds exactly: they are the product's operand, and the scale multiplies its result.
    Gathered as they are, and kept for the backward pass as they are, they take half of a bfloat16 kernel's memory. how:
    names of the axes.
    """
    y = product(x, gather(values, *how.in_axes, *how.out_axes).astype(x.dtype), _dimensions(x.ndim, len(how.in_axes)))
    return _scaled(y, scale)


def _scaled(y: jax.Array, scale: jax.Array) -> jax.Array:
    return (y * scale.reshape((1,) * (y.ndim - scale.ndim) + scale.shape)).astype(y.dtype)


def _quantized_backward(how, saved, dy):
    values, scale = saved
    n_in, n_out = len(how.in_axes), len(how.out_axes)
    over_out = tuple(range(dy.ndim - n_out, dy.ndim)), tuple(range(n_in, n_in + n_out))
    dy = _scaled(dy, scale)
    kernel = gather(values, *how.in_axes, *how.out_axes).astype(dy.dtype)
    return product(dy, kernel, (over_out, ((), ()))), None, None


contract_quantized.defvjp(
    lambda x, values, scale, how: (contract_quantized(x, values, scale, how), (values, scale)), _quantized_backward
)


def is_quantized(kernel: Any) -> bool:
    """Whether a kernel is int8 values with scales (models/int8.py) and no array."""
    return hasattr(kernel, "qvalue")


def _split_as_kernel(x, rows, how):
    """(B, in) with these rows on every device, then split along the contracted axes: the compiler cannot do both."""
    return constrain(constrain(x, rows, *(None,) * len(how.in_axes)), rows, *how.in_axes)


def _dimensions(ndim: int, n_in: int):
    return (tuple(range(ndim - n_in, ndim)), tuple(range(n_in))), ((), ())


def _contract_forward(x, kernel, learned, how):
    return contract(x, kernel, learned, how), (x, kernel)


def _contract_backward(how, saved, dy):
    x, kernel = saved
    names, n_in = (*how.in_axes, *how.out_axes), len(how.in_axes)
    n_lead, n_out = x.ndim - n_in, len(how.out_axes)
    over_out = tuple(range(dy.ndim - n_out, dy.ndim)), tuple(range(n_in, n_in + n_out))
    if how.few_rows:
        dx = product(constrain(dy, Axis.GROUP_ROWS, *how.out_axes), kernel, (over_out, ((), ())))
        dx = constrain(constrain(dx, Axis.GROUP_ROWS, *how.in_axes), Axis.GROUP_ROWS, *(None,) * n_in)
        dx = constrain(dx, Axis.BATCH, *(None,) * n_in)
        x, dy = _split_as_kernel(x, None, how), constrain(dy, None, *how.out_axes)
    else:
        dx = product(dy, gather(kernel, *names), (over_out, ((), ())))
    over_lead = (tuple(range(n_lead)), tuple(range(n_lead))), ((), ())
    dkernel = jax.lax.dot_general(x, dy, over_lead, preferred_element_type=how.reduce_dtype)
    dkernel = constrain(dkernel, *names) if how.few_rows else scatter(dkernel, *names)
    return dx, None, dkernel.astype(how.grad_dtype)


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
