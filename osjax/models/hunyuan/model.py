"""The HunyuanVideo autoencoder, causal in time: frame 0 alone, then groups of `time_compression_ratio` frames.

Source: Open-Sora opensora/models/hunyuan_vae/{vae,autoencoder_kl_causal_3d}.py.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from osjax.models.autoencoder import LatentScale, Stride, Tiling
from osjax.models.hunyuan.blocks import UNIT, CausalConv, GroupNorm, Middle, ResBlock
from osjax.models.hunyuan.config import HunyuanConfig
from osjax.ops.conv import Conv3d

LOG_VARIANCE = (-30.0, 20.0)  # the range that the original clamps to


class Level(nn.Module):
    """The residual blocks of one width, with the resampling behind them."""

    cfg: HunyuanConfig
    width: int
    blocks: int
    resampling: tuple[int, int, int]
    upwards: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_BTHWC: jax.Array) -> jax.Array:
        x = x_BTHWC
        for n in range(self.blocks):
            x = ResBlock(self.width, self.cfg.norm_num_groups, self.dtype, name=f"block{n}")(x)
        if self.resampling == UNIT:
            return x
        if self.upwards:
            return CausalConv(self.width, dtype=self.dtype, name="up")(x, enlarged=self.resampling)
        return CausalConv(self.width, stride=self.resampling, dtype=self.dtype, name="down")(x)


class Half(nn.Module):
    """The encoder, or the decoder (`upwards`): first convolution, levels and middle, norm, last convolution."""

    cfg: HunyuanConfig
    upwards: bool
    features: int
    dtype: jnp.dtype
    remat: bool

    @nn.compact
    def __call__(self, x_BTHWC: jax.Array) -> jax.Array:
        cfg, dtype = self.cfg, self.dtype
        wrap = nn.remat if self.remat else lambda module: module
        widths = cfg.block_out_channels[::-1] if self.upwards else cfg.block_out_channels
        blocks = cfg.layers_per_block + self.upwards
        middle = wrap(Middle)(cfg.norm_num_groups, cfg.mid_block_add_attention, dtype, name="middle")
        x = CausalConv(widths[0], dtype=dtype, name="conv_in")(x_BTHWC)
        if self.upwards:
            x = middle(x)
        for n, width in enumerate(widths):
            x = wrap(Level)(cfg, width, blocks, cfg.resampling(n), self.upwards, dtype, name=f"level{n}")(x)
        if not self.upwards:
            x = middle(x)
        norm_out = GroupNorm(cfg.norm_num_groups, name="norm_out")
        return CausalConv(self.features, dtype=dtype, name="conv_out")(x, norm_out)


class Hunyuan(nn.Module):
    """`apply(..., x_BTHWC, method="encode")`, `apply(..., z_BTHWC, method="decode")`; pixels in [-1, 1].

    dtype: of the computation; norms and softmax stay float32, parameters and results are float32.
    remat: recompute each level in the backward pass, to hold one level's activations at a time.
    """

    cfg: HunyuanConfig
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    def setup(self):
        cfg, latent = self.cfg, self.cfg.latent_channels
        self.encoder = Half(cfg, False, 2 * latent, self.dtype, self.remat)
        self.decoder = Half(cfg, True, cfg.out_channels, self.dtype, self.remat)
        self.quant_conv = Conv3d(2 * latent, UNIT, dtype=self.dtype)
        self.post_quant_conv = Conv3d(latent, UNIT, dtype=self.dtype)

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
        return ("decoder", "conv_out", "conv", "kernel")

    def latent_shape(self, T: int, H: int, W: int) -> tuple[int, int, int]:
        """Latent (T, H, W) of a video of 1 + k * time_compression_ratio frames; UserError for other sizes."""
        return self.cfg.stride.latent_shape(T, H, W)

    def moments(self, x_BTHWC: jax.Array) -> jax.Array:
        """Mean and log variance of the posterior, side by side: (B, T', H', W', 2 * latent_channels)."""
        self.latent_shape(*x_BTHWC.shape[1:4])
        return self.quant_conv(self.encoder(x_BTHWC.astype(self.dtype))).astype(jnp.float32)

    def encode(self, x_BTHWC: jax.Array, noise_BTHWC: jax.Array | None = None) -> jax.Array:
        """Pixels -> normalised latents: the posterior's mean, or with standard normal noise a sample of it."""
        mean, log_variance = jnp.split(self.moments(x_BTHWC), 2, axis=-1)
        if noise_BTHWC is not None:
            mean = mean + jnp.exp(0.5 * jnp.clip(log_variance, *LOG_VARIANCE)) * noise_BTHWC
        return self.latent_scale.normalise(mean)

    def decode(self, z_BTHWC: jax.Array) -> jax.Array:
        """Normalised latents -> pixels, not clipped."""
        z = self.latent_scale.restore(z_BTHWC.astype(jnp.float32))
        return self.decoder(self.post_quant_conv(z.astype(self.dtype))).astype(jnp.float32)

    def __call__(self, x_BTHWC: jax.Array) -> jax.Array:
        """Reconstruction from the posterior's mean; touches every parameter, so `init` goes through it."""
        return self.decode(self.encode(x_BTHWC))


def example_inputs(cfg: HunyuanConfig) -> tuple[jax.Array]:
    """The smallest input that `init` takes: one image of one latent pixel."""
    side = cfg.spatial_compression_ratio
    return (jnp.zeros((1, 1, side, side, cfg.in_channels)),)
