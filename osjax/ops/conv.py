"""3D convolution over (B, T, H, W, C), in forms that give the same numbers at different speeds.

`native`  one 3D convolution: what cuDNN and the TPU compiler are tuned for.
`taps`    the temporal taps stacked into the channels of one 2D convolution: about five times as fast as `native` with
          XLA on two CPU cores, forward and backward.
`winograd` down to an eighth of the products and more sums (`ops/winograd.py`): several times as fast as `taps` on two
          CPU cores where channels are many. On GPUs cuDNN does the like where it pays.
`patches` one product of all that the kernel sees (`ops/patches.py`), for strides and for few values of many channels.
`shifts`  a depthwise convolution of stride one as a sum of shifted products (`ops/depthwise.py`): grouped
          convolutions, and above all their gradients, are slow on XLA's CPU backend.

A kernel of size one is a matrix product whatever the form.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from osjax.ops import depthwise, patches, winograd
from osjax.ops.parameter import logical, parameter
from osjax.ops.platform import platform
from osjax.ops.product import product
from osjax.parallel.sharding import constrain, gathered
from osjax.types import Axis

Triple = tuple[int, int, int]
Padding = Sequence[tuple[int, int]]
IMPLEMENTATIONS = ("auto", "native", "taps", "winograd", "patches", "shifts")
KERNEL_AXES = (Axis.CONV_KERNEL,) * 3 + (Axis.CONV_IN, Axis.CONV_OUT)
BIAS_AXES = (Axis.CONV_OUT,)
# Measured: from how many channels of input and output on `winograd` and `patches` are faster than `taps`, and from how
# many values of each channel on `winograd` is the faster of them.
MANY_CHANNELS, MANY_VALUES = 128, 512
_native_only: ContextVar[bool] = ContextVar("native_only", default=False)


@contextmanager
def as_native() -> Iterator[None]:
    """`auto` means `native` in programs traced within, whose FLOPs can then be counted."""
    token = _native_only.set(True)
    try:
        yield
    finally:
        _native_only.reset(token)


def same_padding(kernel_size: Triple) -> Padding:
    """Zeros on both sides that keep the size at stride one, for odd kernels."""
    return tuple((k // 2, k // 2) for k in kernel_size)


def conv3d(
    x_BTHWC: jax.Array,
    kernel: jax.Array,
    stride: Triple = (1, 1, 1),
    padding: Padding | None = None,
    groups: int = 1,
    impl: str = "auto",
    bias: jax.Array | None = None,
) -> jax.Array:
    """x (B, T, H, W, C), kernel (kt, kh, kw, C / groups, O), bias (O,) -> (B, T', H', W', O), in x's dtype.

    On a mesh every device convolves its own clips with whole kernels, however these are stored.

    padding: zeros in front of and behind T, H and W; None keeps the size at stride one.
    impl: one of IMPLEMENTATIONS; `auto` picks the fastest where the program runs. ValueError on another name, on
          `shifts` for a convolution that is strided or not depthwise, or on `winograd` for what does not suit it.
    """
    # Said outright: left to itself the compiler splits channels as kernels are stored, and moves activations.
    x_BTHWC, kernel = jnp.asarray(x_BTHWC), gathered(jnp.asarray(kernel), KERNEL_AXES)
    y = _convolved(x_BTHWC, kernel, stride, padding, groups, impl)
    if bias is not None:
        y = y + gathered(bias, BIAS_AXES).reshape(1, 1, 1, 1, -1)
    return constrain(y, Axis.BATCH, *(None,) * 4)


def _convolved(x_BTHWC, kernel, stride, padding, groups, impl):
    padding = same_padding(kernel.shape[:3]) if padding is None else tuple(padding)
    per_channel = _is_depthwise(kernel, groups)
    if impl == "auto":
        impl = _fastest(x_BTHWC, kernel, stride, padding, groups)
    if kernel.shape[:3] == stride == (1, 1, 1) and not any(map(any, padding)) and not per_channel:
        return _matmul(x_BTHWC, kernel, groups)
    if impl == "native":
        return _native(x_BTHWC, kernel, stride, padding, groups)
    if impl == "taps":
        return _taps(x_BTHWC, kernel, stride, padding, groups)
    if impl == "patches" and groups == 1:
        return patches.conv(x_BTHWC, kernel, stride, padding)
    if impl == "shifts" and per_channel and stride == (1, 1, 1):
        return depthwise.conv(x_BTHWC, kernel, padding)
    if impl == "winograd" and groups == 1 and winograd.suits(kernel.shape, stride, padding):
        return winograd.conv(x_BTHWC, kernel, padding)
    raise ValueError(f"conv3d has no {impl!r} for {groups} groups, stride {stride}; choose one of {IMPLEMENTATIONS}")


def _is_depthwise(kernel, groups) -> bool:
    return groups > 1 and kernel.shape[3] == 1 and kernel.shape[4] == groups


def _fastest(x_BTHWC, kernel, stride, padding, groups) -> str:
    if _native_only.get() or platform() != "cpu":
        return "native"
    if groups > 1:
        return "shifts" if _is_depthwise(kernel, groups) and stride == (1, 1, 1) else "taps"
    if min(kernel.shape[3:]) < MANY_CHANNELS:
        return "taps"
    values = math.prod(x_BTHWC.shape[:4])
    if values >= MANY_VALUES and winograd.suits(kernel.shape, stride, padding):
        return "winograd"
    return "patches" if values < MANY_VALUES or stride != (1, 1, 1) else "taps"


def _matmul(x_BTHWC: jax.Array, kernel: jax.Array, groups: int) -> jax.Array:
    *lead, C = x_BTHWC.shape
    if groups == 1:
        return product(x_BTHWC, kernel.reshape(C, -1), (((4,), (0,)), ((), ())))
    weight_gio = kernel.reshape(C // groups, groups, -1).transpose(1, 0, 2)
    x = x_BTHWC.reshape(*lead, groups, C // groups)
    return jnp.einsum("bthwgi,gio->bthwgo", x, weight_gio).reshape(*lead, -1)


def _native(x, kernel, stride, padding, groups):
    numbers = ("NDHWC", "DHWIO", "NDHWC")
    return lax.conv_general_dilated(x, kernel, stride, padding, dimension_numbers=numbers, feature_group_count=groups)


def _taps(x, kernel, stride, padding, groups):
    B, _, H, W, C = x.shape
    kt, kh, kw, in_channels, out_channels = kernel.shape
    x = jnp.pad(x, ((0, 0), padding[0], (0, 0), (0, 0), (0, 0)))
    frames = (x.shape[1] - kt) // stride[0] + 1
    shifted = [lax.slice_in_dim(x, i, i + (frames - 1) * stride[0] + 1, stride[0], axis=1) for i in range(kt)]
    shifted = [s.reshape(B * frames, H, W, groups, 1, in_channels) for s in shifted]  # taps of a group stay together
    stacked = jnp.concatenate(shifted, axis=4).reshape(B * frames, H, W, kt * C)
    flat = kernel.transpose(1, 2, 0, 3, 4).reshape(kh, kw, kt * in_channels, out_channels)
    y = lax.conv_general_dilated(
        stacked, flat, stride[1:], padding[1:], dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
    )
    return y.reshape(B, frames, *y.shape[1:])


class Conv3d(nn.Module):
    """`conv3d` with its parameters: kernel (kt, kh, kw, C / groups, features) and bias (features,), float32."""

    features: int
    kernel_size: Triple = (3, 3, 3)
    stride: Triple = (1, 1, 1)
    padding: Padding | None = None
    groups: int = 1
    use_bias: bool = True
    dtype: jnp.dtype = jnp.float32
    impl: str = "auto"

    @nn.compact
    def __call__(self, x_BTHWC: jax.Array) -> jax.Array:
        # A third of the usual variance, as in the original: branches add to shortcuts without norms in between.
        init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform", in_axis=(0, 1, 2, 3))
        shape = (*self.kernel_size, x_BTHWC.shape[-1] // self.groups, self.features)
        kernel = parameter(self, "kernel", logical(init, *KERNEL_AXES), shape)
        bias = None
        if self.use_bias:
            zeros = logical(nn.initializers.zeros, *BIAS_AXES)
            bias = parameter(self, "bias", zeros, (self.features,)).astype(self.dtype)
        x, kernel = x_BTHWC.astype(self.dtype), kernel.astype(self.dtype)
        return conv3d(x, kernel, self.stride, self.padding, self.groups, self.impl, bias)
