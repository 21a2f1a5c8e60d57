"""The two block kinds of the MMDiT. Source: report Fig. 7; Open-Sora opensora/models/mmdit/layers.py.

A double-stream block keeps separate weights for video and text and joins them in one attention; a single-stream block
runs one set of weights over the joined sequence, attention and feed-forward in parallel. Text comes first when joined.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from osjax.models.mmdit.config import MMDiTConfig
from osjax.ops.attention import attend
from osjax.ops.layers import Linear, RMSNorm, layer_norm
from osjax.ops.rope import rotate
from osjax.ops.stack import ATTENTION_OUT
from osjax.types import Axis

HEAD_AXES = (Axis.HEADS, Axis.HEAD_DIM)
TOKEN_AXES = (Axis.BATCH, Axis.TOKENS, Axis.ACT_EMBED)


def modulate(x_BSD: jax.Array, shift_B1D: jax.Array, scale_B1D: jax.Array) -> jax.Array:
    return layer_norm(x_BSD) * (1 + scale_B1D) + shift_B1D


def gelu(x: jax.Array) -> jax.Array:
    return jax.nn.gelu(x, approximate=True)  # the original's tanh form; the exact one differs by 7e-5


class Modulation(nn.Module):
    """vec_BD -> `count` vectors (B, 1, D), in the original's order shift, scale, gate, shift, scale, gate."""

    cfg: MMDiTConfig
    count: int

    @nn.compact
    def __call__(self, vec_BD: jax.Array) -> list[jax.Array]:
        width = self.cfg.hidden_size
        out = Linear(
            (self.count * width,),
            (Axis.EMBED,),
            (Axis.MODULATION,),
            zero_init=True,
            dtype=jnp.dtype(self.cfg.dtype),
            name="lin",
        )(jax.nn.silu(vec_BD))
        return jnp.split(out[:, None, :], self.count, -1)


class QKV(nn.Module):
    """x_BSD -> q, k, v (B, S, h, d); q and k RMS-normalised per head (before the rotation)."""

    cfg: MMDiTConfig
    use_bias: bool

    @nn.compact
    def __call__(self, x_BSD: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        cfg = self.cfg
        qkv_BS3hd = Linear(
            (3, cfg.num_heads, cfg.head_dim),
            (Axis.EMBED,),
            (Axis.QKV, *HEAD_AXES),
            use_bias=self.use_bias,
            dtype=jnp.dtype(cfg.dtype),
            name="qkv",
        )(x_BSD)
        q_BShd, k_BShd, v_BShd = (qkv_BS3hd[:, :, i] for i in range(3))
        return RMSNorm(name="query_norm")(q_BShd), RMSNorm(name="key_norm")(k_BShd), v_BShd


class DoubleStreamBlock(nn.Module):
    """Separate video and text weights, joint attention."""

    cfg: MMDiTConfig

    @nn.compact
    def __call__(self, carry, vec_BD, cos_BSd, sin_BSd):
        cfg, dtype = self.cfg, jnp.dtype(self.cfg.dtype)
        img_BND, txt_BMD = carry
        streams = {"txt": txt_BMD, "img": img_BND}
        mods = {name: Modulation(cfg, 6, name=f"{name}_mod")(vec_BD) for name in streams}
        qkv = {
            name: QKV(cfg, cfg.qkv_bias, name=f"{name}_attn")(modulate(x, *mods[name][:2]))
            for name, x in streams.items()
        }
        q, k, v = (jnp.concatenate([qkv["txt"][i], qkv["img"][i]], 1) for i in range(3))
        attn_BShd = attend(rotate(q, cos_BSd, sin_BSd), rotate(k, cos_BSd, sin_BSd), v, impl=cfg.attention)
        attn_BShd = checkpoint_name(attn_BShd, ATTENTION_OUT)
        M = txt_BMD.shape[1]
        attn = {"txt": attn_BShd[:, :M], "img": attn_BShd[:, M:]}

        out = {}
        for name, x in streams.items():
            _, _, gate_attn, shift, scale, gate_mlp = mods[name]
            proj = Linear((cfg.hidden_size,), HEAD_AXES, (Axis.EMBED,), dtype=dtype, name=f"{name}_proj")
            x = x + gate_attn * proj(attn[name])
            hidden = Linear((cfg.mlp_dim,), (Axis.EMBED,), (Axis.MLP,), dtype=dtype, name=f"{name}_mlp_in")
            back = Linear((cfg.hidden_size,), (Axis.MLP,), (Axis.EMBED,), dtype=dtype, name=f"{name}_mlp_out")
            x = x + gate_mlp * back(gelu(hidden(modulate(x, shift, scale))))
            out[name] = nn.with_logical_constraint(x, TOKEN_AXES)
        return (out["img"], out["txt"]), None


class SingleStreamBlock(nn.Module):
    """One set of weights over the joined sequence; attention and feed-forward read the same input."""

    cfg: MMDiTConfig

    @nn.compact
    def __call__(self, x_BSD, vec_BD, cos_BSd, sin_BSd):
        cfg, dtype = self.cfg, jnp.dtype(self.cfg.dtype)
        shift, scale, gate = Modulation(cfg, 3, name="modulation")(vec_BD)
        y_BSD = modulate(x_BSD, shift, scale)
        q, k, v = QKV(cfg, use_bias=True, name="attn")(y_BSD)
        attn_BShd = attend(rotate(q, cos_BSd, sin_BSd), rotate(k, cos_BSd, sin_BSd), v, impl=cfg.attention)
        attn_BShd = checkpoint_name(attn_BShd, ATTENTION_OUT)
        hidden_BSF = gelu(Linear((cfg.mlp_dim,), (Axis.EMBED,), (Axis.MLP,), dtype=dtype, name="mlp_in")(y_BSD))
        # The original's linear2 over [attention, feed-forward]; two kernels so that each can split over `tensor`.
        out = Linear((cfg.hidden_size,), HEAD_AXES, (Axis.EMBED,), dtype=dtype, name="proj")(attn_BShd)
        out = out + Linear((cfg.hidden_size,), (Axis.MLP,), (Axis.EMBED,), use_bias=False, dtype=dtype, name="mlp_out")(
            hidden_BSF
        )
        return nn.with_logical_constraint(x_BSD + gate * out, TOKEN_AXES), None
