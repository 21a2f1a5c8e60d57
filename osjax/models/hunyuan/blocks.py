"""Blocks of the HunyuanVideo autoencoder: causal convolution, residual block, attention, resampling.

Source: Open-Sora opensora/models/hunyuan_vae/unet_causal_3d_blocks.py.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from osjax.ops.conv import Conv3d
from osjax.ops.layers import Linear, logical
from osjax.types import Axis

EPS = 1e-6
NO_PADDING = ((0, 0),) * 3


class CausalConv(nn.Module):
    """A convolution that sees no later frame. Edges repeat: half a kernel around, the whole of it in front in time."""

    features: int
    size: int = 3
    stride: tuple[int, int, int] = (1, 1, 1)
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BTHWC: jax.Array) -> jax.Array:
        half = self.size // 2
        x = jnp.pad(x_BTHWC, ((0, 0), (self.size - 1, 0), (half, half), (half, half), (0, 0)), mode="edge")
        return Conv3d(self.features, (self.size,) * 3, self.stride, NO_PADDING, dtype=self.dtype, name="conv")(x)


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


class ResBlock(nn.Module):
    """Norm, SiLU and convolution, twice, beside a shortcut that is a 1x1x1 convolution where the width changes."""

    features: int
    groups: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BTHWC: jax.Array) -> jax.Array:
        y = nn.silu(GroupNorm(self.groups, name="norm1")(x_BTHWC))
        y = CausalConv(self.features, dtype=self.dtype, name="conv1")(y)
        y = nn.silu(GroupNorm(self.groups, name="norm2")(y))
        y = CausalConv(self.features, dtype=self.dtype, name="conv2")(y)
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
    x = x_BTHWC.repeat(height, axis=2).repeat(width, axis=3)
    return jnp.concatenate([x[:, :1], x[:, 1:].repeat(time, axis=1)], axis=1)
