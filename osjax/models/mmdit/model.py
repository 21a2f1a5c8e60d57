"""The multimodal diffusion transformer: velocity of video latent tokens given text, time and a condition."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from osjax.errors import UserError
from osjax.models.mmdit.blocks import DoubleStreamBlock, SingleStreamBlock
from osjax.models.mmdit.config import MMDiTConfig
from osjax.ops.layers import Linear, layer_norm
from osjax.ops.rope import angles
from osjax.ops.stack import stack
from osjax.types import Axis

TIME_FEATURES = 256


def timestep_features(t_B: jax.Array, dim: int = TIME_FEATURES, max_period: float = 10_000.0) -> jax.Array:
    """Sinusoids of 1000 * t, cosines before sines, (B, dim) float32 (float32 proved by the zero-input goldens)."""
    half = dim // 2
    # The exponent is rounded to float32 as in the original, the exponential is not: 1000 * frequency turns one bit
    # of it into a phase error of 6e-5 at t = 1.
    exponent = -math.log(max_period) * np.arange(half, dtype=np.float32) / half
    frequency = np.exp(exponent.astype(np.float64)).astype(np.float32)
    phase = (1000.0 * t_B.astype(jnp.float32))[:, None] * frequency[None]
    return jnp.concatenate([jnp.cos(phase), jnp.sin(phase)], -1)


class MLPEmbedder(nn.Module):
    """features -> width: linear, SiLU, linear."""

    cfg: MMDiTConfig

    @nn.compact
    def __call__(self, x_BC: jax.Array) -> jax.Array:
        width, dtype = (self.cfg.hidden_size,), jnp.dtype(self.cfg.dtype)
        x = Linear(width, (Axis.FEATURES,), (Axis.EMBED,), dtype=dtype, name="in_layer")(x_BC)
        # The square kernel names its sides differently: one logical axis cannot shard both.
        return Linear(width, (Axis.FEATURES,), (Axis.EMBED,), dtype=dtype, name="out_layer")(jax.nn.silu(x))


class MMDiT(nn.Module):
    """Apply with `{"params": params}`; see `__call__` for shapes. Source: report section 3.2."""

    cfg: MMDiTConfig

    @nn.compact
    def __call__(
        self,
        img_BND: jax.Array,
        img_ids: jax.Array,
        txt_BMD: jax.Array,
        txt_ids: jax.Array,
        timesteps_B: jax.Array,
        y_vec: jax.Array,
        cond: jax.Array | None = None,
        guidance: jax.Array | None = None,
    ) -> jax.Array:
        """Velocity (B, N, in_channels) of the packed latent.

        img_BND: packed noisy latent (B, N, in_channels). img_ids, txt_ids: positions (B, N, 3), (B, M, 3).
        txt_BMD: text states (B, M, context_in_dim). timesteps_B: t in [0, 1], 1 is noise.
        y_vec: pooled text (B, vec_in_dim). cond: packed condition (B, N, cond_channels), mask values first.
        guidance: strength (B,) for guidance-distilled models. UserError when cond or guidance is missing or unused.
        """
        cfg, dtype = self.cfg, jnp.dtype(self.cfg.dtype)
        if cfg.cond_embed != (cond is not None):
            raise UserError(f"cond_embed is {cfg.cond_embed}, but cond is {'missing' if cond is None else 'given'}")
        if cfg.guidance_embed != (guidance is not None):
            raise UserError(
                f"guidance_embed is {cfg.guidance_embed}, but guidance is {'missing' if guidance is None else 'given'}"
            )

        def embed(name, x, zero_init=False):
            return Linear(
                (cfg.hidden_size,), (Axis.PATCH,), (Axis.EMBED,), zero_init=zero_init, dtype=dtype, name=name
            )(x)

        img = embed("img_in", img_BND)
        if cfg.cond_embed:
            img = img + embed("cond_in", cond, zero_init=True)  # zero: starts as the unconditional model
        vec = MLPEmbedder(cfg, name="time_in")(timestep_features(timesteps_B))
        if cfg.guidance_embed:
            vec = vec + MLPEmbedder(cfg, name="guidance_in")(timestep_features(guidance))
        vec = vec + MLPEmbedder(cfg, name="vector_in")(y_vec)
        txt = Linear((cfg.hidden_size,), (Axis.FEATURES,), (Axis.EMBED,), dtype=dtype, name="txt_in")(txt_BMD)

        angle_BSd = angles(jnp.concatenate([txt_ids, img_ids], 1), cfg.axes_dim, cfg.theta)
        invariants = (vec, jnp.cos(angle_BSd), jnp.sin(angle_BSd))
        if cfg.depth:
            double = stack(DoubleStreamBlock, cfg.depth, broadcast=3, remat=cfg.remat)
            (img, txt), _ = double(cfg, name="double_blocks")((img, txt), *invariants)
        x = jnp.concatenate([txt, img], 1)
        if cfg.depth_single_blocks:
            single = stack(SingleStreamBlock, cfg.depth_single_blocks, broadcast=3, remat=cfg.remat)
            x, _ = single(cfg, name="single_blocks")(x, *invariants)
        return FinalLayer(cfg, name="final_layer")(x[:, txt_BMD.shape[1] :], vec)


class FinalLayer(nn.Module):
    """Modulated norm and projection back to token channels; modulation order shift, scale."""

    cfg: MMDiTConfig

    @nn.compact
    def __call__(self, x_BND: jax.Array, vec_BD: jax.Array) -> jax.Array:
        cfg, dtype = self.cfg, jnp.dtype(self.cfg.dtype)
        mod = Linear(
            (2 * cfg.hidden_size,), (Axis.EMBED,), (Axis.MODULATION,), zero_init=True, dtype=dtype, name="modulation"
        )(jax.nn.silu(vec_BD))
        shift, scale = jnp.split(mod[:, None, :], 2, -1)
        x = layer_norm(x_BND) * (1 + scale) + shift
        return Linear((cfg.in_channels,), (Axis.EMBED,), (Axis.PATCH,), zero_init=True, dtype=dtype, name="linear")(x)


def example_inputs(cfg: MMDiTConfig) -> tuple:
    """Smallest inputs that initialise every parameter, as shapes."""

    def f32(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    cond = f32(1, 1, cfg.cond_channels) if cfg.cond_embed else None
    guidance = f32(1) if cfg.guidance_embed else None
    txt = f32(1, 1, cfg.context_in_dim)
    return f32(1, 1, cfg.in_channels), f32(1, 1, 3), txt, f32(1, 1, 3), f32(1), f32(1, cfg.vec_in_dim), cond, guidance
