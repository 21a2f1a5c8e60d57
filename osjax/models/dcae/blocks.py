"""Norm, activation and the residual blocks of the DC-AE.

Source: Open-Sora opensora/models/dc_ae/models/nn/{ops,norm,act}.py; the linear attention is EfficientViT's.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from osjax.models.dcae import chunks
from osjax.models.dcae.config import HEAD_DIM
from osjax.ops.parameter import logical, parameter
from osjax.types import Axis

NORM_EPS = 1e-5
ATTENTION_EPS = 1e-15
GLU_RATIO = 4  # hidden channels of the gated convolution, per channel

_ACTIVATIONS = {
    None: lambda x: x,
    "relu": nn.relu,
    "relu6": nn.relu6,
    "hswish": nn.hard_swish,
    "silu": nn.silu,
    "gelu": lambda x: nn.gelu(x, approximate=True),
}


def activate(x: jax.Array, name: str | None) -> jax.Array:
    """x behind the activation that a config calls `name`, one of `config.ACTIVATIONS`; None leaves x as it is."""
    return _ACTIVATIONS[name](x)


class Norm(nn.Module):
    """RMS norm (or, for ln2d, layer norm) over channels, in float32, with scale and bias. kind None passes x through.

    in_residual: the norm closes a residual branch. Its scale then starts near zero, as in the original, so that a new
    model begins as its shortcuts alone.
    """

    kind: str | None
    in_residual: bool = True

    @nn.compact
    def __call__(self, x_BTHWC: jax.Array) -> jax.Array:
        if self.kind is None:
            return x_BTHWC
        start = nn.initializers.truncated_normal(0.02) if self.in_residual else nn.initializers.ones
        shape = (x_BTHWC.shape[-1],)
        scale = parameter(self, "scale", logical(start, Axis.NORM), shape)
        bias = parameter(self, "bias", logical(nn.initializers.zeros, Axis.NORM), shape)
        x = x_BTHWC.astype(jnp.float32)
        if self.kind == "ln2d":
            x = x - x.mean(-1, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + NORM_EPS)
        x = x * scale.reshape(1, 1, 1, 1, -1) + bias.reshape(1, 1, 1, 1, -1)
        return x.astype(x_BTHWC.dtype)


class ConvNorm(nn.Module):
    """A convolution and the norm behind it; `size` is the kernel's side, flat in time for image models.

    chunk, here and below: frames of a chunk at this level (`models/dcae/chunks.py`); 0 takes clips whole.
    """

    features: int
    size: int
    video: bool
    norm: str | None = None
    groups: int = 1
    use_bias: bool = False
    dtype: jnp.dtype = jnp.float32
    chunk: int = 0

    @nn.compact
    def __call__(self, x_BTHWC: jax.Array) -> jax.Array:
        kernel_size = (self.size if self.video else 1, self.size, self.size)
        options = {"groups": self.groups, "use_bias": self.use_bias, "dtype": self.dtype}
        y = chunks.conv(self, x_BTHWC, self.chunk, self.features, kernel_size, name="conv", **options)
        return Norm(self.norm, name="norm")(y)


class ResBlock(nn.Module):
    """x + norm(conv(act(conv(x))))."""

    norm: str | None
    act: str | None
    video: bool
    dtype: jnp.dtype = jnp.float32
    chunk: int = 0

    @nn.compact
    def __call__(self, x_BTHWC: jax.Array) -> jax.Array:
        C, how = x_BTHWC.shape[-1], {"dtype": self.dtype, "chunk": self.chunk}
        y = ConvNorm(C, 3, self.video, use_bias=True, **how, name="conv1")(x_BTHWC)
        y = ConvNorm(C, 3, self.video, self.norm, **how, name="conv2")(activate(y, self.act))
        return x_BTHWC + y


def attention_sums(qkv_BNh3d: jax.Array) -> tuple[jax.Array, jax.Array]:
    """All that attention reads of keys and values: (B, h, d, d) and (B, h, d), in float32."""
    k, v = nn.relu(qkv_BNh3d[..., 1, :].astype(jnp.float32)), qkv_BNh3d[..., 2, :].astype(jnp.float32)
    return jnp.einsum("bnhd,bnhe->bhde", k, v, precision="highest"), k.sum(1)


def linear_attention(qkv_BNh3d: jax.Array, sums: tuple[jax.Array, jax.Array]) -> jax.Array:
    """ReLU attention without softmax: (B, N, h, 3, d) -> (B, N, h, d), linear in the number of tokens, in float32.

    sums: `attention_sums` of the tokens that are attended to.
    """
    q, (state_Bhde, total_Bhd) = nn.relu(qkv_BNh3d[..., 0, :].astype(jnp.float32)), sums
    out = jnp.einsum("bnhd,bhde->bnhe", q, state_Bhde, precision="highest")
    weight = jnp.einsum("bnhd,bhd->bnh", q, total_Bhd, precision="highest")
    return out / (weight[..., None] + ATTENTION_EPS)


class LinearAttention(nn.Module):
    """Multi-scale linear attention over all pixels of all frames, or of a frame's chunk and the chunk before it.

    Beside plain q, k, v, a second set is gathered from a 5-wide neighbourhood (`multiscale`), which doubles the heads.
    """

    multiscale: bool
    norm: str | None
    video: bool
    dtype: jnp.dtype = jnp.float32
    chunk: int = 0

    @nn.compact
    def __call__(self, x_BTHWC: jax.Array) -> jax.Array:
        B, T, H, W, C = x_BTHWC.shape
        qkv = ConvNorm(3 * C, 1, self.video, dtype=self.dtype, name="qkv")(x_BTHWC)
        sets = [qkv]
        if self.multiscale:
            how = {"groups": 3 * C, "dtype": self.dtype, "chunk": self.chunk}
            near = ConvNorm(3 * C, 5, self.video, **how, name="aggregate_depthwise")(qkv)
            mixed = ConvNorm(3 * C, 1, self.video, groups=3 * C // HEAD_DIM, dtype=self.dtype, name="aggregate_mix")
            sets.append(mixed(near))
        n = chunks.count(self, T, self.chunk) if self.chunk else 1
        heads = jnp.concatenate(sets, axis=-1).reshape(B * n, T // n * H * W, -1, 3, HEAD_DIM)
        sums = attention_sums(heads)
        if self.chunk:
            sums = tuple(map(jnp.add, sums, chunks.previous(self, "sums", sums, n)))
        out = linear_attention(heads, sums).astype(x_BTHWC.dtype).reshape(B, T, H, W, -1)
        return ConvNorm(C, 1, self.video, self.norm, dtype=self.dtype, name="proj")(out)


class GatedConv(nn.Module):
    """Widen, look around depthwise, gate one half with the other, narrow."""

    norm: str | None
    act: str | None
    video: bool
    dtype: jnp.dtype = jnp.float32
    chunk: int = 0

    @nn.compact
    def __call__(self, x_BTHWC: jax.Array) -> jax.Array:
        C = x_BTHWC.shape[-1]
        wide = 2 * GLU_RATIO * C
        y = ConvNorm(wide, 1, self.video, use_bias=True, dtype=self.dtype, name="widen")(x_BTHWC)
        y = activate(y, self.act)
        how = {"groups": wide, "use_bias": True, "dtype": self.dtype, "chunk": self.chunk}
        y = ConvNorm(wide, 3, self.video, **how, name="depthwise")(y)
        value, gate = jnp.split(y, 2, axis=-1)
        return ConvNorm(C, 1, self.video, self.norm, dtype=self.dtype, name="narrow")(value * activate(gate, self.act))


class AttentionBlock(nn.Module):
    """Linear attention, then the gated convolution, each added to its input."""

    multiscale: bool
    norm: str | None
    act: str | None
    video: bool
    dtype: jnp.dtype = jnp.float32
    chunk: int = 0

    @nn.compact
    def __call__(self, x_BTHWC: jax.Array) -> jax.Array:
        how = (self.video, self.dtype, self.chunk)
        x = x_BTHWC + LinearAttention(self.multiscale, self.norm, *how, name="attention")(x_BTHWC)
        return x + GatedConv(self.norm, self.act, *how, name="gated_conv")(x)


def block(
    kind: str, norm: str | None, act: str | None, video: bool, dtype: jnp.dtype, chunk: int, name: str
) -> nn.Module:
    """The block that a config calls `kind`, one of `config.BLOCKS`.

    norm, act: its norms and activations by the config's names. video: 3D convolutions; else 2D ones, frame by frame.
    chunk: frames of a chunk at this stage, 0 for none. name: of the module in the params tree.
    """
    if kind == "ResBlock":
        return ResBlock(norm, act, video, dtype, chunk, name=name)
    return AttentionBlock(kind == "EViTS5_GLU", norm, act, video, dtype, chunk, name=name)
