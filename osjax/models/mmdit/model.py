"""The multimodal diffusion transformer: velocity of video latent tokens given text, time and a condition."""

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from osjax.errors import UserError
from osjax.models.mmdit import patch, reusing, stacks
from osjax.models.mmdit.blocks import dense
from osjax.models.mmdit.config import MMDiTConfig
from osjax.models.mmdit.tokens import TokenLayout
from osjax.models.reuse import Reuse, Reused
from osjax.models.velocity import Given, Size, VideoInputs
from osjax.ops import rope
from osjax.ops.attention import SEQUENCE, attend
from osjax.ops.modulation import norm_modulate
from osjax.parallel.sharding import ways
from osjax.types import Axis

TIME_FEATURES = 256


class MMDiT(nn.Module):
    """Apply with `{"params": params}`; see `__call__` for shapes. Source: report section 3.2.

    It keeps the contract of video models (`models/velocity.py`): `velocity` takes latents by their size where
    `__call__`, which has the original's arguments, takes position ids.
    """

    cfg: MMDiTConfig

    @nn.compact
    def __call__(
        self,
        img_BNC: jax.Array,
        img_ids: jax.Array,
        txt_BMC: jax.Array,
        txt_ids: jax.Array,
        timesteps_B: jax.Array,
        y_vec: jax.Array,
        cond: jax.Array | None = None,
        guidance: jax.Array | None = None,
        reuse: Reuse | None = None,
    ) -> jax.Array | Reused:
        """Velocity (B, N, in_channels) of the packed latent.

        img_BNC: packed noisy latent (B, N, in_channels). img_ids, txt_ids: positions (B, N, 3), (B, M, 3).
        txt_BMC: text states (B, M, context_in_dim). timesteps_B: t in [0, 1], 1 is noise.
        y_vec: pooled text (B, vec_in_dim). cond: packed condition (B, N, cond_channels), mask values first.
        guidance: strength (B,) for guidance-distilled models, (B, 2) for those that are told both. reuse: of an earlier
        call, what the blocks add; the result is `Reused` then. UserError when cond or guidance is missing or unused.
        """
        cfg = self.cfg
        check_given(cfg, cond, guidance)
        M, N = txt_BMC.shape[1], img_BNC.shape[1]
        layout = TokenLayout(M, N, ways(SEQUENCE), joined=cfg.text_tokens == "sharded")

        img_BND = embed(cfg, "img_in")(layout.pad_video(img_BNC))
        if cfg.cond_embed:  # zero: starts as the unconditional model
            img_BND += embed(cfg, "cond_in", zero_init=True)(layout.pad_video(cond))
        txt_BMD = embed(cfg, "txt_in", Axis.FEATURES)(layout.pad_text(txt_BMC))
        vec_BD = MLPEmbedder(cfg, name="time_in")(timestep_features(timesteps_B, dtype=cfg.time_dtype))
        if cfg.guidance_embed:
            text_B = guidance[:, 0] if cfg.guidance_img_embed else guidance
            vec_BD += self._scale("guidance_in", text_B)
        if cfg.guidance_img_embed:
            vec_BD += self._scale("guidance_img_in", guidance[:, 1])
        vec_BD += MLPEmbedder(cfg, name="vector_in")(y_vec)
        img_angle = rotations(cfg, layout.pad_video(img_ids))
        txt_angle = rotations(cfg, layout.pad_text(txt_ids))

        tokens = layout.place_video(img_BND), layout.place_text(txt_BMD)
        blocks = stacks.Stacks(self, layout, vec_BD, img_angle, txt_angle)
        if reuse is None:
            return FinalLayer(cfg, name="final_layer")(blocks.video(tokens), vec_BD)[:, :N]
        img_BND, *rest = reusing.run(blocks, tokens, reuse)
        return Reused(FinalLayer(cfg, name="final_layer")(img_BND, vec_BD)[:, :N], *rest)

    def _scale(self, name: str, strength_B: jax.Array) -> jax.Array:
        """What the strength of guidance adds: nothing at first, so that a student starts as the model that it had."""
        features = timestep_features(strength_B, dtype=self.cfg.time_dtype)
        return MLPEmbedder(self.cfg, zero_init=True, name=name)(features)

    @property
    def inputs(self) -> VideoInputs:
        return self.cfg.inputs

    def check_latent(self, T: int, H: int, W: int, C: int) -> None:
        """UserError for a latent of T frames, H rows, W columns and C channels that the model does not take."""
        self.cfg.check_latent(T, H, W, C)

    def check_attention(self) -> None:
        """UserError where the attention of the configuration cannot run on the mesh in force."""
        cfg, rows = self.cfg, ways("data") * ways("fsdp")
        x_BShd = jax.ShapeDtypeStruct((rows, ways(SEQUENCE), cfg.num_heads, cfg.head_dim), cfg.dtype)
        jax.eval_shape(partial(attend, impl=cfg.attention, kernel=cfg.attention_kernel), *[x_BShd] * 3)

    def pack(self, latents_BTHWC: jax.Array) -> jax.Array:
        """Latents or a condition -> tokens (B, N, C * patch_size ** 2)."""
        return patch.pack(latents_BTHWC, self.cfg.patch_size)

    def unpack(self, x_BNC: jax.Array, size: Size) -> jax.Array:
        """Tokens -> latents of `size` (T, H, W)."""
        return patch.unpack(x_BNC, self.cfg.patch_size, *size)

    def velocity(
        self,
        x_BNC: jax.Array,
        size: Size,
        t_B: jax.Array,
        txt_BMC: jax.Array,
        vec_BC: jax.Array,
        cond_BTHWC: jax.Array | None = None,
        strength_B: jax.Array | None = None,
    ) -> jax.Array:
        """Velocity (B, N, C) of packed latents, at the positions that their size implies; see models/velocity.py."""
        return self(*self._placed(x_BNC, size, t_B, Given(txt_BMC, vec_BC, cond_BTHWC, strength_B)))

    def velocity_reusing(self, x_BNC: jax.Array, size: Size, t_B: jax.Array, given: Given, reuse: Reuse) -> Reused:
        """What `velocity` gives, by a call that may skip the blocks: see models/reuse.py, also for the arguments.

        x_BNC, size, t_B, given, reuse: of its `of_packed`.
        """
        return self(*self._placed(x_BNC, size, t_B, given), reuse)

    def _placed(self, x_BNC: jax.Array, size: Size, t_B: jax.Array, given: Given) -> tuple:
        """The arguments of a call at the positions that the size of the latents implies."""
        B, p = x_BNC.shape[0], self.cfg.patch_size
        img_ids, txt_ids = patch.img_ids(B, *size, p), patch.txt_ids(B, given.txt_BMC.shape[1])
        cond_BNC = None if given.cond_BTHWC is None else self.pack(given.cond_BTHWC)
        return x_BNC, img_ids, given.txt_BMC, txt_ids, t_B, given.vec_BC, cond_BNC, given.strength_B


def check_given(cfg: MMDiTConfig, cond: jax.Array | None, guidance: jax.Array | None) -> None:
    """UserError where `cond` or `guidance` is missing, or given to a model of `cfg` that has no use for it."""
    if cfg.cond_embed != (cond is not None):
        raise UserError(f"cond_embed is {cfg.cond_embed}, but cond is {'missing' if cond is None else 'given'}")
    if cfg.guidance_embed != (guidance is not None):
        raise UserError(
            f"guidance_embed is {cfg.guidance_embed}, but guidance is {'missing' if guidance is None else 'given'}"
        )


def timestep_features(
    t_B: jax.Array, dim: int = TIME_FEATURES, max_period: float = 10_000.0, dtype: str = "float32"
) -> jax.Array:
    """Sinusoids of 1000 * t, cosines before sines, (B, dim) float32 (float32 proved by the zero-input goldens).

    dim: features, even. max_period: of the slowest sinusoid, in thousandths of the whole path from noise to data.
    dtype: "bfloat16" rounds t, 1000 * t and the sinusoids to it, as the released weights were trained and are sampled
    with (opensora/models/mmdit/layers.py): over 50 steps the features differ by a fifth from those of exact times.
    """
    half = dim // 2
    # The exponent is rounded to float32 as in the original, the exponential is not: 1000 * frequency turns one bit
    # of it into a phase error of 6e-5 at t = 1.
    exponent = -math.log(max_period) * np.arange(half, dtype=np.float32) / half
    frequency = np.exp(exponent.astype(np.float64)).astype(np.float32)
    # Not by casts: a compiler may leave a cast there and back out, for more precision than was asked for.
    rounded = partial(jax.lax.reduce_precision, exponent_bits=8, mantissa_bits=7 if dtype == "bfloat16" else 23)
    phase = rounded(1000.0 * rounded(t_B.astype(jnp.float32)))[:, None] * frequency[None]
    return rounded(jnp.concatenate([jnp.cos(phase), jnp.sin(phase)], -1))


def rotations(cfg: MMDiTConfig, ids_BS3: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines by which q and k of tokens at these positions are rotated."""
    return rope.tables(rope.angles(ids_BS3, cfg.axes_dim, cfg.theta))


def embed(cfg: MMDiTConfig, name: str, axis: str = Axis.PATCH, zero_init: bool = False) -> nn.Module:
    """The linear layer `name` from what enters the model to its width, for inputs (B, S, features).

    axis: logical name of the features. zero_init: so that the layer adds nothing at first.
    """
    return dense(cfg)((cfg.hidden_size,), (axis,), (Axis.EMBED,), zero_init=zero_init, name=name)


class MLPEmbedder(nn.Module):
    """features -> width: linear, SiLU, linear. zero_init: so that it gives zeros at first."""

    cfg: MMDiTConfig
    zero_init: bool = False

    @nn.compact
    def __call__(self, x_BC: jax.Array) -> jax.Array:
        linear = partial(dense(self.cfg), (self.cfg.hidden_size,), (Axis.FEATURES,), (Axis.EMBED,))
        # The square kernel names its sides differently: one logical axis cannot shard both.
        hidden_BD = jax.nn.silu(linear(name="in_layer")(x_BC))
        return linear(zero_init=self.zero_init, name="out_layer")(hidden_BD)


class FinalLayer(nn.Module):
    """Modulated norm and projection back to token channels; modulation order shift, scale."""

    cfg: MMDiTConfig

    @nn.compact
    def __call__(self, x_BND: jax.Array, vec_BD: jax.Array) -> jax.Array:
        cfg = self.cfg
        width, channels = (2 * cfg.hidden_size,), (cfg.in_channels,)
        mod = dense(cfg)(width, (Axis.EMBED,), (Axis.MODULATION,), zero_init=True, few_rows=True, name="modulation")
        shift, scale = jnp.split(mod(jax.nn.silu(vec_BD))[:, None, :], 2, -1)
        linear = dense(cfg)(channels, (Axis.EMBED,), (Axis.PATCH,), zero_init=True, name="linear")
        return linear(norm_modulate(x_BND, shift, scale))


def example_inputs(cfg: MMDiTConfig) -> tuple:
    """Smallest inputs that initialise every parameter, as shapes."""

    def f32(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    cond = f32(1, 1, cfg.cond_channels) if cfg.cond_embed else None
    guidance = (f32(1, 2) if cfg.guidance_img_embed else f32(1)) if cfg.guidance_embed else None
    txt = f32(1, 1, cfg.context_in_dim)
    return f32(1, 1, cfg.in_channels), f32(1, 1, 3), txt, f32(1, 1, 3), f32(1), f32(1, cfg.vec_in_dim), cond, guidance
