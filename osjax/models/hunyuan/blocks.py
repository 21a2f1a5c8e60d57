"""Blocks of the HunyuanVideo autoencoder: causal convolution, residual block, attention, resampling.

Source: Open-Sora opensora/models/hunyuan_vae/unet_causal_3d_blocks.py.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from osjax.ops.conv import BIAS_AXES, KERNEL_AXES, Conv3d, conv3d
from osjax.ops.layers import Linear
from osjax.ops.parameter import logical
from osjax.parallel.sharding import gathered
from osjax.types import Axis

EPS = 1e-6
NO_PADDING = ((0, 0),) * 3
Triple = tuple[int, int, int]
UNIT: Triple = (1, 1, 1)
WHOLE = 2**28  # values of an activation: larger ones are convolved a few frames at a time
STEP = 2**26  # values of those frames


class CausalConv(nn.Module):
    """A convolution that sees no later frame. Edges repeat: half a kernel around, the whole of it in front in time.

    Large videos go through it a few frames at a time, with the same result: see `_in_steps`.
    """

    features: int
    size: int = 3
    stride: tuple[int, int, int] = UNIT
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BTHWC: jax.Array, norm: nn.Module | None = None, enlarged: Triple = UNIT) -> jax.Array:
        """norm: a `GroupNorm` of the input, with SiLU behind it. enlarged: factors of nearest-neighbour upsampling."""
        if not self.is_initializing() and _is_large(x_BTHWC, self.features, enlarged):
            return self._in_steps(x_BTHWC, norm, enlarged)
        x = enlarge(x_BTHWC if norm is None else nn.silu(norm(x_BTHWC)), enlarged)
        x = jnp.pad(x, ((0, 0), (self.size - 1, 0), *self._around, (0, 0)), mode="edge")
        return Conv3d(self.features, (self.size,) * 3, self.stride, NO_PADDING, dtype=self.dtype, name="conv")(x)

    @property
    def _around(self) -> tuple[tuple[int, int], tuple[int, int]]:
        half = self.size // 2
        return (half, half), (half, half)

    def _in_steps(self, x: jax.Array, norm: nn.Module | None, enlarged: Triple) -> jax.Array:
        """A few frames of the result at a time, from the frames that they see.

        What lies between (the normalised, the enlarged and the padded input, each as large as the video) is then of
        those frames alone.
        """
        own = self.variables["params"]["conv"]
        kernel = gathered(own["kernel"].astype(self.dtype), KERNEL_AXES)  # once, rather than at every step
        bias = gathered(own["bias"].astype(self.dtype), BIAS_AXES)
        prepare = (lambda window: window) if norm is None else norm.of_frames(x)
        B, T, H, W, C = x.shape
        stride, (time, height, width) = self.stride, enlarged
        frames = (T - 1) * time + 1
        frames = (frames - 1) // stride[0] + 1
        H, W = (-(-size * f // s) for size, f, s in ((H, height, stride[1]), (W, width, stride[2])))
        step = max(1, min(frames, STEP // (H * W * max(C, self.features) * stride[0])))
        seen = jnp.arange((step - 1) * stride[0] + self.size) - (self.size - 1)

        def some(i, out):
            first = jnp.minimum(i * step, frames - step)
            asked = jnp.maximum(first * stride[0] + seen, 0)  # before the first frame lies the first frame
            window = prepare(jnp.take(x, (asked + time - 1) // time, axis=1))
            window = window.repeat(height, axis=2).repeat(width, axis=3)
            window = jnp.pad(window, ((0, 0), (0, 0), *self._around, (0, 0)), mode="edge")
            made = conv3d(window.astype(self.dtype), kernel, stride, NO_PADDING, bias=bias)
            return jax.lax.dynamic_update_slice_in_dim(out, made, first, axis=1)

        out = jnp.zeros((B, frames, H, W, self.features), self.dtype)
        return jax.lax.fori_loop(0, -(-frames // step), some, out)


class GroupNorm(nn.Module):
    """Group norm over all frames and pixels, in float32. It makes the model not strictly causal, as in the original."""

    groups: int

    @nn.compact
    def __call__(self, x_BTHWC: jax.Array) -> jax.Array:
        norm = nn.GroupNorm(
            self.groups,
            epsilon=EPS,
            use_fast_variance=False,  # E[x^2] - E[x]^2 loses digits
            dtype=jnp.float32,
            scale_init=logical(nn.initializers.ones, Axis.NORM),
            bias_init=logical(nn.initializers.zeros, Axis.NORM),
            name="norm",
        )
        return norm(x_BTHWC.astype(jnp.float32)).astype(x_BTHWC.dtype)

    def of_frames(self, x_BTHWC: jax.Array) -> Callable[[jax.Array], jax.Array]:
        """What this norm of the whole video, and SiLU, do to some of its frames."""
        own = self.variables["params"]["norm"]
        B, C = x_BTHWC.shape[0], x_BTHWC.shape[-1]

        def mean_of_groups(y_BTHWC):
            # By channels first: a dimension of four channels would fill a TPU's registers with nothing.
            mean_Bgc = y_BTHWC.mean((1, 2, 3)).reshape(B, self.groups, -1)
            return jnp.broadcast_to(mean_Bgc.mean(-1, keepdims=True), mean_Bgc.shape).reshape(B, 1, 1, 1, C)

        x = x_BTHWC.astype(jnp.float32)
        mean = mean_of_groups(x)
        scale = jax.lax.rsqrt(mean_of_groups(jnp.square(x - mean)) + EPS) * own["scale"].reshape(1, 1, 1, 1, C)
        bias = own["bias"].reshape(1, 1, 1, 1, C)
        return lambda some: nn.silu(((some.astype(jnp.float32) - mean) * scale + bias).astype(x_BTHWC.dtype))


def _is_large(x_BTHWC: jax.Array, features: int, enlarged: Triple) -> bool:
    pixels = x_BTHWC.size // x_BTHWC.shape[-1] * math.prod(enlarged)
    return pixels * max(x_BTHWC.shape[-1], features) > WHOLE


class ResBlock(nn.Module):
    """Norm, SiLU and convolution, twice, beside a shortcut that is a 1x1x1 convolution where the width changes."""

    features: int
    groups: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BTHWC: jax.Array) -> jax.Array:
        norm1, norm2 = (GroupNorm(self.groups, name=name) for name in ("norm1", "norm2"))
        y = CausalConv(self.features, dtype=self.dtype, name="conv1")(x_BTHWC, norm1)
        y = CausalConv(self.features, dtype=self.dtype, name="conv2")(y, norm2)
        if x_BTHWC.shape[-1] == self.features:
            return x_BTHWC + y
        return CausalConv(self.features, 1, dtype=self.dtype, name="shortcut")(x_BTHWC) + y


class FrameCausalAttention(nn.Module):
    """One head over the pixels of this frame and all before it.

    Frames ask one after the other: scores take (H W) x (T H W) values at a time rather than (T H W) squared, which for
    33 latent frames of 32 x 32 is 138 MB instead of 4.6 GB. Masked keys cost up to twice the arithmetic.
    """

    groups: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BTHWC: jax.Array) -> jax.Array:
        B, T, H, W, C = x_BTHWC.shape
        normed = GroupNorm(self.groups, name="norm")(x_BTHWC).reshape(B, T, H * W, C)

        def linear(name):
            return Linear((C,), (Axis.CONV_IN,), (Axis.CONV_OUT,), dtype=self.dtype, name=name)

        q, k, v = (linear(name)(normed) for name in ("q", "k", "v"))
        k, v = k.reshape(B, T * H * W, C), v.reshape(B, T * H * W, C)
        frame_of_key = jnp.arange(T * H * W) // (H * W)

        def one_frame(asked):
            frame, q_BNC = asked
            scores = jnp.einsum("bqc,bkc->bqk", q_BNC, k, preferred_element_type=jnp.float32) * C**-0.5
            scores = jnp.where((frame_of_key <= frame)[None, None], scores, -jnp.inf)
            return jnp.einsum("bqk,bkc->bqc", jax.nn.softmax(scores).astype(v.dtype), v)

        mixed = jax.lax.map(jax.checkpoint(one_frame), (jnp.arange(T), q.swapaxes(0, 1))).swapaxes(0, 1)
        return x_BTHWC + linear("out")(mixed).reshape(B, T, H, W, C)


class Middle(nn.Module):
    """Residual block, attention (where the config has it), residual block."""

    groups: int
    attention: bool
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BTHWC: jax.Array) -> jax.Array:
        C = x_BTHWC.shape[-1]
        x = ResBlock(C, self.groups, self.dtype, name="block0")(x_BTHWC)
        if self.attention:
            x = FrameCausalAttention(self.groups, self.dtype, name="attention")(x)
        return ResBlock(C, self.groups, self.dtype, name="block1")(x)


def enlarge(x_BTHWC: jax.Array, factors: tuple[int, int, int]) -> jax.Array:
    """Nearest-neighbour upsampling. The first frame, which stands for itself alone, is not repeated in time."""
    time, height, width = factors
    if factors == UNIT:
        return x_BTHWC
    x = x_BTHWC.repeat(height, axis=2).repeat(width, axis=3)
    return jnp.concatenate([x[:, :1], x[:, 1:].repeat(time, axis=1)], axis=1)
