"""The FLUX image autoencoder, 8x8 compression. Frames are images of their own: they are folded into the batch.

Source: Open-Sora opensora/models/vae/autoencoder_2d.py.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from osjax.errors import UserError
from osjax.models.autoencoder import LatentScale, Stride, Tiling
from osjax.models.hunyuan.blocks import FrameCausalAttention, GroupNorm, enlarge
from osjax.ops.conv import Conv3d

GROUPS = 32
FLAT = (1, 3, 3)
RIGHT_AND_BOTTOM = ((0, 0), (0, 1), (0, 1))  # halving pads only there
LOG_VARIANCE = (-30.0, 20.0)


@dataclass(frozen=True)
class FluxAEConfig:
    """Field names are the original's. Defaults: the released autoencoder of FLUX.1-dev.

    latent = scale_factor * (z - shift_factor). resolution: of its training; the model takes any size. sample: whether
    the original draws from the posterior; here `encode` does so when it is given noise. from_pretrained, cache_dir:
    kept for the original's configs; weights are loaded by osjax.weights.
    """

    resolution: int = 256
    in_channels: int = 3
    ch: int = 128
    out_ch: int = 3
    ch_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    z_channels: int = 16
    scale_factor: float = 0.3611
    shift_factor: float = 0.1159
    sample: bool = True
    from_pretrained: str | None = None
    cache_dir: str | None = None

    def __post_init__(self):
        object.__setattr__(self, "ch_mult", tuple(self.ch_mult))
        if self.ch % GROUPS:
            raise UserError(
                f"flux_ae ch {self.ch} does not divide into {GROUPS} norm groups: use a multiple of {GROUPS}"
            )

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of every level, finest first."""
        return tuple(self.ch * m for m in self.ch_mult)

    @property
    def latent_channels(self) -> int:
        return self.z_channels

    @property
    def stride(self) -> Stride:
        return Stride(1, 2 ** (len(self.ch_mult) - 1))

    @property
    def tiling(self) -> Tiling:
        """No tiles: images are encoded whole."""
        return Tiling()

    @property
    def latent_scale(self) -> LatentScale:
        """How latents are normalised: scale_factor * (z - shift_factor)."""
        return LatentScale(self.scale_factor, self.shift_factor)

    def scale_fields(self, scale: LatentScale) -> dict[str, float]:
        """The fields that give the latents this scale and shift."""
        return {"scale_factor": float(scale.scale), "shift_factor": float(scale.shift)}


class ResBlock(nn.Module):
    """Norm, SiLU and convolution, twice, beside a shortcut that is a 1x1 convolution where the width changes."""

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BTHWC: jax.Array) -> jax.Array:
        y = nn.silu(GroupNorm(GROUPS, name="norm1")(x_BTHWC))
        y = Conv3d(self.features, FLAT, dtype=self.dtype, name="conv1")(y)
        y = nn.silu(GroupNorm(GROUPS, name="norm2")(y))
        y = Conv3d(self.features, FLAT, dtype=self.dtype, name="conv2")(y)
        if x_BTHWC.shape[-1] == self.features:
            return x_BTHWC + y
        return Conv3d(self.features, (1, 1, 1), dtype=self.dtype, name="shortcut")(x_BTHWC) + y


class Half(nn.Module):
    """The encoder, or the decoder (`upwards`). Images (B, 1, H, W, C)."""

    cfg: FluxAEConfig
    upwards: bool
    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BTHWC: jax.Array) -> jax.Array:
        cfg, dtype = self.cfg, self.dtype
        levels = list(enumerate(cfg.widths))
        first = cfg.widths[-1] if self.upwards else cfg.ch
        x = Conv3d(first, FLAT, dtype=dtype, name="conv_in")(x_BTHWC)
        if self.upwards:
            x = self._middle(x)
        for level, width in reversed(levels) if self.upwards else levels:
            for n in range(cfg.num_res_blocks + self.upwards):
                x = ResBlock(width, dtype, name=f"level{level}_block{n}")(x)
            if self.upwards and level > 0:
                x = Conv3d(width, FLAT, dtype=dtype, name=f"level{level}_up")(enlarge(x, (1, 2, 2)))
            if not self.upwards and level < len(levels) - 1:
                x = Conv3d(width, FLAT, (1, 2, 2), RIGHT_AND_BOTTOM, dtype=dtype, name=f"level{level}_down")(x)
        if not self.upwards:
            x = self._middle(x)
        x = nn.silu(GroupNorm(GROUPS, name="norm_out")(x))
        return Conv3d(self.features, FLAT, dtype=dtype, name="conv_out")(x)

    def _middle(self, x: jax.Array) -> jax.Array:
        width = self.cfg.widths[-1]
        x = ResBlock(width, self.dtype, name="middle_block0")(x)
        x = FrameCausalAttention(GROUPS, self.dtype, name="middle_attention")(x)  # one frame: no mask
        return ResBlock(width, self.dtype, name="middle_block1")(x)


class FluxAE(nn.Module):
    """`apply(..., x_BTHWC, method="encode")`, `apply(..., z_BTHWC, method="decode")`; pixels in [-1, 1]."""

    cfg: FluxAEConfig
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        self.encoder = Half(self.cfg, False, 2 * self.cfg.z_channels, self.dtype)
        self.decoder = Half(self.cfg, True, self.cfg.out_ch, self.dtype)

    @property
    def stride(self) -> Stride:
        return self.cfg.stride

    @property
    def tiling(self) -> Tiling:
        return self.cfg.tiling

    @property
    def latent_scale(self) -> LatentScale:
        return self.cfg.latent_scale

    @property
    def last_layer(self) -> tuple[str, ...]:
        """Path of the decoder's last kernel."""
        return ("decoder", "conv_out", "kernel")

    def latent_shape(self, T: int, H: int, W: int) -> tuple[int, int, int]:
        """Latent (T, H, W) of T images; UserError where the stride does not divide their size."""
        return self.cfg.stride.latent_shape(T, H, W)

    def moments(self, x_BTHWC: jax.Array) -> jax.Array:
        """Mean and log variance of the posterior, side by side: (B, T, H', W', 2 * z_channels)."""
        self.latent_shape(*x_BTHWC.shape[1:4])
        return _each_frame(self.encoder, x_BTHWC.astype(self.dtype))

    def encode(self, x_BTHWC: jax.Array, noise_BTHWC: jax.Array | None = None) -> jax.Array:
        """Pixels -> normalised latents: the posterior's mean, or with standard normal noise a sample of it."""
        mean, log_variance = jnp.split(self.moments(x_BTHWC), 2, axis=-1)
        if noise_BTHWC is not None:
            mean = mean + jnp.exp(0.5 * jnp.clip(log_variance, *LOG_VARIANCE)) * noise_BTHWC
        return self.latent_scale.normalise(mean)

    def decode(self, z_BTHWC: jax.Array) -> jax.Array:
        """Normalised latents -> pixels, not clipped."""
        z = self.latent_scale.restore(z_BTHWC.astype(jnp.float32))
        return _each_frame(self.decoder, z.astype(self.dtype))

    def __call__(self, x_BTHWC: jax.Array) -> jax.Array:
        """Reconstruction from the posterior's mean; touches every parameter, so `init` goes through it."""
        return self.decode(self.encode(x_BTHWC))


def _each_frame(half: Half, x_BTHWC: jax.Array) -> jax.Array:
    B, T = x_BTHWC.shape[:2]
    y = half(x_BTHWC.reshape(B * T, 1, *x_BTHWC.shape[2:])).astype(jnp.float32)
    return y.reshape(B, T, *y.shape[2:])


def example_inputs(cfg: FluxAEConfig) -> tuple[jax.Array]:
    """The smallest input that `init` takes: one image of one latent pixel."""
    side = cfg.stride.space
    return (jnp.zeros((1, 1, side, side, cfg.in_channels)),)
