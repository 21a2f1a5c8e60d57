"""The Video DC-AE: stages of blocks and resampling from pixels to latents and back.

Not causal: convolutions see both neighbours in time, with zeros beyond the ends. With `chunk_frames` causal from
chunk to chunk (`models/dcae/chunks.py`), for clips of any length (`models/dcae/stream.py`).
Source: Open-Sora opensora/models/dc_ae/models/dc_ae.py.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from osjax.models.autoencoder import LatentScale, Stride, Tiling
from osjax.models.dcae import chunks
from osjax.models.dcae.blocks import Norm, activate, block
from osjax.models.dcae.config import DCAEConfig, DecoderConfig, EncoderConfig, block_types, per_stage
from osjax.models.dcae.resampling import Downsample, Upsample
from osjax.ops.resample import average_down, duplicate_up


def _temporal(cfg: EncoderConfig | DecoderConfig) -> tuple[bool, ...]:
    """Per stage, whether it resamples time."""
    by_stage = cfg.temporal_downsample if isinstance(cfg, EncoderConfig) else cfg.temporal_upsample
    return by_stage or (False,) * len(cfg.width_list)


def _chunk_at(cfg: EncoderConfig | DecoderConfig, stage: int, chunk: int) -> int:
    """Frames of a chunk at a stage, of `chunk` in pixels."""
    return chunk >> sum(_temporal(cfg)[:stage])


class Stage(nn.Module):
    """The blocks of one stage, with the upsampling in front (decoder) or the downsampling behind (encoder).

    chunk: frames of a chunk at this stage.
    """

    cfg: EncoderConfig | DecoderConfig
    stage: int
    dtype: jnp.dtype = jnp.float32
    chunk: int = 0

    @nn.compact
    def __call__(self, x_BTHWC: jax.Array) -> jax.Array:
        cfg, i = self.cfg, self.stage
        resamples = i < len(cfg.width_list) - 1
        x, how = x_BTHWC, (cfg.is_video, _temporal(cfg)[i], self.dtype, self.chunk)
        if resamples and isinstance(cfg, DecoderConfig):
            kind, shortcut = cfg.upsample_block_type, cfg.upsample_shortcut
            x = Upsample(cfg.width_list[i], kind, shortcut, *how, name="up")(x)
        for n, kind in enumerate(block_types(cfg, i)):
            norm, act = per_stage(cfg.norm, i), per_stage(cfg.act, i)
            x = block(kind, norm, act, cfg.is_video, self.dtype, self.chunk, name=f"block{n}")(x)
        if resamples and isinstance(cfg, EncoderConfig):
            kind, shortcut = cfg.downsample_block_type, cfg.downsample_shortcut
            x = Downsample(cfg.width_list[i + 1], kind, shortcut, *how, name="down")(x)
        return x


class Encoder(nn.Module):
    """Pixels (B, T, H, W, 3) -> unscaled latents. An image encoder (`is_video` False) takes each frame by itself."""

    cfg: EncoderConfig
    dtype: jnp.dtype = jnp.float32
    remat: bool = False
    chunk: int = 0

    @nn.compact
    def __call__(self, x_BTHWC: jax.Array) -> jax.Array:
        cfg, dtype = self.cfg, self.dtype
        stage = nn.remat(Stage) if self.remat else Stage
        x, frames = _frames_apart(x_BTHWC, cfg.is_video)
        first = 0 if cfg.depth_list[0] else 1
        if first == 0:
            x = _conv(self, x, cfg.width_list[0], self.chunk, "project_in")
        else:
            how = (cfg.downsample_block_type, None, cfg.is_video, False, dtype, self.chunk)
            x = Downsample(cfg.width_list[1], *how, name="project_in")(x)
        for i in range(first, len(cfg.width_list)):
            x = stage(cfg, i, dtype, _chunk_at(cfg, i, self.chunk), name=f"stage{i}")(x)
        y = activate(Norm(cfg.out_norm, in_residual=False, name="out_norm")(x), cfg.out_act)
        y = _conv(self, y, cfg.latent_channels, _chunk_at(cfg, i, self.chunk), "project_out")
        if cfg.out_shortcut:
            y = y + average_down(x, cfg.latent_channels, (1, 1, 1)).astype(y.dtype)
        return _frames_together(y, frames)


class Decoder(nn.Module):
    """Unscaled latents -> pixels (B, T, H, W, 3)."""

    cfg: DecoderConfig
    dtype: jnp.dtype = jnp.float32
    remat: bool = False
    chunk: int = 0

    @nn.compact
    def __call__(self, z_BTHWC: jax.Array) -> jax.Array:
        cfg, dtype = self.cfg, self.dtype
        stage = nn.remat(Stage) if self.remat else Stage
        z, frames = _frames_apart(z_BTHWC, cfg.is_video)
        last = len(cfg.width_list) - 1
        x = _conv(self, z, cfg.width_list[-1], _chunk_at(cfg, last, self.chunk), "project_in")
        if cfg.in_shortcut:
            x = x + duplicate_up(z, cfg.width_list[-1], (1, 1, 1)).astype(x.dtype)
        first = 0 if cfg.depth_list[0] else 1
        for i in reversed(range(first, len(cfg.width_list))):
            x = stage(cfg, i, dtype, _chunk_at(cfg, i, self.chunk), name=f"stage{i}")(x)
        x = activate(Norm(cfg.out_norm, in_residual=False, name="out_norm")(x), cfg.out_act)
        if first == 0:
            x = _conv(self, x, cfg.in_channels, self.chunk, "project_out")
        else:
            how = (cfg.upsample_block_type, None, cfg.is_video, False, dtype, self.chunk)
            x = Upsample(cfg.in_channels, *how, name="project_out")(x)
        return _frames_together(x, frames)


class DCAE(nn.Module):
    """The autoencoder: `apply(..., x_BTHWC, method="encode")`, `apply(..., z_BTHWC, method="decode")`.

    Pixels are in [-1, 1]; latents are divided by `cfg.scaling_factor`. Parameters are float32.
    dtype: of the computation; norms and attention stay float32. Outputs are float32.
    remat: recompute each stage in the backward pass, to hold one stage's activations at a time.
    """

    cfg: DCAEConfig
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    def setup(self):
        self.encoder = Encoder(self.cfg.encoder, self.dtype, self.remat, self.cfg.chunk_frames)
        self.decoder = Decoder(self.cfg.decoder, self.dtype, self.remat, self.cfg.chunk_frames)

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
        # Where the first stage has no blocks, the last layer enlarges as well.
        inner = () if self.cfg.decoder.depth_list[0] else ("conv",)
        return ("decoder", "project_out", *inner, "kernel")

    def latent_shape(self, T: int, H: int, W: int) -> tuple[int, int, int]:
        """Latent (T, H, W) of a video of that size; UserError where strides or chunks do not divide it."""
        self.cfg.check_chunks(T)
        return self.cfg.stride.latent_shape(T, H, W)

    def encode(self, x_BTHWC: jax.Array) -> jax.Array:
        """Pixels (B, T, H, W, C) -> normalised latents. T is 1 or a multiple of stride and chunk, else UserError."""
        self.latent_shape(*x_BTHWC.shape[1:4])
        z = self.encoder(x_BTHWC.astype(self.dtype)).astype(jnp.float32)
        return self.latent_scale.normalise(z)

    def decode(self, z_BTHWC: jax.Array) -> jax.Array:
        """Normalised latents -> pixels, not clipped. One latent frame gives one frame, more give `stride.time` each."""
        self.cfg.check_chunks(self.cfg.stride.pixel_shape(*z_BTHWC.shape[1:4])[0])
        z = self.latent_scale.restore(z_BTHWC.astype(jnp.float32))
        return self.decoder(z.astype(self.dtype)).astype(jnp.float32)

    def __call__(self, x_BTHWC: jax.Array) -> jax.Array:
        """Reconstruction; touches every parameter, so `init` goes through it."""
        return self.decode(self.encode(x_BTHWC))


def example_inputs(cfg: DCAEConfig) -> tuple[jax.Array]:
    """The smallest input that `init` takes: one image of one latent pixel."""
    side = cfg.spatial_compression_ratio
    return (jnp.zeros((1, 1, side, side, cfg.in_channels)),)


def _conv(module: Encoder | Decoder, x_BTHWC: jax.Array, features: int, chunk: int, name: str) -> jax.Array:
    kernel = (3 if module.cfg.is_video else 1, 3, 3)
    return chunks.conv(module, x_BTHWC, chunk, features, kernel, dtype=module.dtype, name=name)


def _frames_apart(x_BTHWC: jax.Array, video: bool) -> tuple[jax.Array, int]:
    """For an image model, frames become batch items. Returns the number of frames to put together again, or 0."""
    if video:
        return x_BTHWC, 0
    B, T, H, W, C = x_BTHWC.shape
    return x_BTHWC.reshape(B * T, 1, H, W, C), T


def _frames_together(x_BTHWC: jax.Array, frames: int) -> jax.Array:
    return x_BTHWC if frames == 0 else x_BTHWC.reshape(-1, frames, *x_BTHWC.shape[2:])
