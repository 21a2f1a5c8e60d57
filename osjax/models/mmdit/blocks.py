"""The two block kinds of the MMDiT. Source: report Fig. 7; Open-Sora opensora/models/mmdit/layers.py.

A double-stream block keeps separate weights for video and text and joins them in one attention; a single-stream block
runs one set of weights over both, attention and feed-forward in parallel. How the two lie on a mesh: `tokens.py`.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from osjax.models.mmdit.config import MMDiTConfig
from osjax.models.mmdit.tokens import TokenLayout
from osjax.ops.attention import attend
from osjax.ops.layers import Linear
from osjax.ops.modulation import add_gated, gelu, norm_modulate
from osjax.ops.rope import RotaryNorm
from osjax.parallel.sharding import constrain
from osjax.types import Axis

HEAD_AXES = (Axis.HEADS, Axis.HEAD_DIM)


class Modulation(nn.Module):
    """vec_BD -> `count` vectors (B, 1, D), in the original's order shift, scale, gate, shift, scale, gate."""

    cfg: MMDiTConfig
    count: int

    @nn.compact
    def __call__(self, vec_BD: jax.Array) -> list[jax.Array]:
        width = (self.count * self.cfg.hidden_size,)
        linear = dense(self.cfg)(width, (Axis.EMBED,), (Axis.MODULATION,), zero_init=True, few_rows=True, name="lin")
        return jnp.split(linear(jax.nn.silu(vec_BD))[:, None, :], self.count, -1)


class QKV(nn.Module):
    """x_BSD -> q, k, v (B, S, h, d), q and k RMS-normalised per head and rotated, for each set of tokens given."""

    cfg: MMDiTConfig
    use_bias: bool

    @nn.compact
    def __call__(self, streams: list[jax.Array], angles: list[tuple[jax.Array, jax.Array]]) -> list[tuple]:
        cfg = self.cfg
        shape, axes = (3, cfg.num_heads, cfg.head_dim), (Axis.QKV, *HEAD_AXES)
        linear = dense(cfg)(shape, (Axis.EMBED,), axes, use_bias=self.use_bias, name="qkv")
        norms = RotaryNorm(name="query_norm"), RotaryNorm(name="key_norm")
        out = []
        for x_BSD, angle in zip(streams, angles, strict=True):
            qkv_BS3hd = linear(x_BSD)
            q_BShd, k_BShd = (norm(qkv_BS3hd[:, :, i], *angle) for i, norm in enumerate(norms))
            out.append((q_BShd, k_BShd, qkv_BS3hd[:, :, 2]))
        return out


def dense(cfg: MMDiTConfig):
    """`Linear` in the model's dtypes."""
    return partial(Linear, dtype=jnp.dtype(cfg.dtype), reduce_dtype=cfg.grad_reduce)


def tokens(x_BSD: jax.Array, whole: bool = False) -> jax.Array:
    """Tokens split over `sequence`, or whole on every device."""
    return constrain(x_BSD, Axis.BATCH, None if whole else Axis.TOKENS, Axis.ACT_EMBED)


class DoubleStreamBlock(nn.Module):
    """Separate video and text weights, joint attention."""

    cfg: MMDiTConfig
    layout: TokenLayout

    @nn.compact
    def __call__(self, carry, vec_BD, txt_angle, img_angle):
        cfg, layout = self.cfg, self.layout
        img_BND, txt_BMD = carry
        streams, angles = {"txt": txt_BMD, "img": img_BND}, {"txt": txt_angle, "img": img_angle}
        mods = {name: Modulation(cfg, 6, name=f"{name}_mod")(vec_BD) for name in streams}
        qkv = {}
        for name, x in streams.items():
            y = norm_modulate(x, *mods[name][:2])
            (qkv[name],) = QKV(cfg, cfg.qkv_bias, name=f"{name}_attn")([y], [angles[name]])
        attn = dict(zip(("txt", "img"), joint_attention(cfg, layout, self, qkv["txt"], qkv["img"]), strict=True))

        out = {}
        for name, x in streams.items():
            _, _, gate_attn, shift, scale, gate_mlp = mods[name]
            proj = dense(cfg)((cfg.hidden_size,), HEAD_AXES, (Axis.EMBED,), name=f"{name}_proj")
            x = add_gated(x, gate_attn, proj(attn[name]))
            hidden = dense(cfg)((cfg.mlp_dim,), (Axis.EMBED,), (Axis.MLP,), name=f"{name}_mlp_in")
            back = dense(cfg)((cfg.hidden_size,), (Axis.MLP,), (Axis.EMBED,), name=f"{name}_mlp_out")
            x = add_gated(x, gate_mlp, back(gelu(hidden(norm_modulate(x, shift, scale)))))
            out[name] = tokens(x, whole=name == "txt" and not layout.joined)
        return (out["img"], out["txt"]), None


def joint_attention(cfg, layout: TokenLayout, module: nn.Module, txt, img) -> tuple[jax.Array, jax.Array]:
    """Attention of text and video over both: (out of text, out of video). txt, img: q, k, v."""
    if layout.joined:
        q, k, v = (layout.join(*pair) for pair in zip(txt, img, strict=True))
        return layout.part(attention(cfg, layout, module)(q, k, v))
    return attention(cfg, layout, module)(*img, shared=txt)[::-1]


def attention(cfg: MMDiTConfig, layout: TokenLayout, module: nn.Module):
    # Parameters are initialised from one token, on whatever machine there is: any attention will do.
    impl = "dense" if module.is_initializing() else cfg.attention
    return partial(attend, impl=impl, kernel=cfg.attention_kernel, valid=layout.valid())


class SingleStreamBlock(nn.Module):
    """One set of weights over text and video; attention and feed-forward read the same input.

    streams: [joined sequence], or [text, video] where text is held whole by every device.
    """

    cfg: MMDiTConfig
    layout: TokenLayout

    @nn.compact
    def __call__(self, streams, vec_BD, *angles):
        cfg = self.cfg
        shift, scale, gate = Modulation(cfg, 3, name="modulation")(vec_BD)
        ys = [norm_modulate(x, shift, scale) for x in streams]
        qkv = QKV(cfg, use_bias=True, name="attn")(ys, angles)
        if self.layout.joined:
            attn = [attention(cfg, self.layout, self)(*qkv[0])]
        else:
            attn = joint_attention(cfg, self.layout, self, *qkv)
        hidden = dense(cfg)((cfg.mlp_dim,), (Axis.EMBED,), (Axis.MLP,), name="mlp_in")
        # The original's linear2 over [attention, feed-forward]; two kernels so that each can split over `tensor`.
        proj = dense(cfg)((cfg.hidden_size,), HEAD_AXES, (Axis.EMBED,), name="proj")
        back = dense(cfg)((cfg.hidden_size,), (Axis.MLP,), (Axis.EMBED,), use_bias=False, name="mlp_out")
        out = []
        for x, y, a in zip(streams, ys, attn, strict=True):
            whole = len(streams) == 2 and not out
            out.append(tokens(add_gated(x, gate, proj(a) + back(gelu(hidden(y)))), whole))
        return out, None
