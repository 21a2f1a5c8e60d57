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
from osjax.types import Axis

HEAD_AXES = (Axis.HEADS, Axis.HEAD_DIM)
Angle = tuple[jax.Array, jax.Array]  # cosines and sines of a stream's tokens
QKVTriple = tuple[jax.Array, jax.Array, jax.Array]


def dense(cfg: MMDiTConfig) -> partial:
    """`Linear` in the model's dtypes."""
    return partial(Linear, dtype=jnp.dtype(cfg.dtype), reduce_dtype=cfg.grad_reduce)


class DoubleStreamBlock(nn.Module):
    """Separate video and text weights, joint attention."""

    cfg: MMDiTConfig
    layout: TokenLayout

    @nn.compact
    def __call__(self, carry, vec_BD, txt_angle, img_angle):
        cfg, layout = self.cfg, self.layout
        img_BND, txt_BMD = carry
        txt_mod, img_mod = (Modulation(cfg, 6, name=f"{name}_mod")(vec_BD) for name in ("txt", "img"))
        txt_qkv = QKV(cfg, cfg.qkv_bias, name="txt_attn")(norm_modulate(txt_BMD, *txt_mod[:2]), txt_angle)
        img_qkv = QKV(cfg, cfg.qkv_bias, name="img_attn")(norm_modulate(img_BND, *img_mod[:2]), img_angle)
        txt_attn, img_attn = joint_attention(self, txt_qkv, img_qkv)
        txt_BMD = self._updated("txt", txt_BMD, txt_attn, txt_mod[2:])
        img_BND = self._updated("img", img_BND, img_attn, img_mod[2:])
        return (layout.place_video(img_BND), layout.place_text(txt_BMD)), None

    def _updated(self, name: str, x_BSD: jax.Array, attn_BShd: jax.Array, mod: list[jax.Array]) -> jax.Array:
        """A stream with its attention and its feed-forward added. mod: the vectors behind those of the first norm."""
        cfg, (gate_attn, shift, scale, gate_mlp) = self.cfg, mod
        proj = dense(cfg)((cfg.hidden_size,), HEAD_AXES, (Axis.EMBED,), name=f"{name}_proj")
        mlp_in = dense(cfg)((cfg.mlp_dim,), (Axis.EMBED,), (Axis.MLP,), name=f"{name}_mlp_in")
        mlp_out = dense(cfg)((cfg.hidden_size,), (Axis.MLP,), (Axis.EMBED,), name=f"{name}_mlp_out")
        x_BSD = add_gated(x_BSD, gate_attn, proj(attn_BShd))
        return add_gated(x_BSD, gate_mlp, mlp_out(gelu(mlp_in(norm_modulate(x_BSD, shift, scale)))))


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
        qkv = QKV(cfg, use_bias=True, name="attn")
        mlp_in = dense(cfg)((cfg.mlp_dim,), (Axis.EMBED,), (Axis.MLP,), name="mlp_in")
        # The original's linear2 over [attention, feed-forward]; two kernels so that each can split over `tensor`.
        proj = dense(cfg)((cfg.hidden_size,), HEAD_AXES, (Axis.EMBED,), name="proj")
        mlp_out = dense(cfg)((cfg.hidden_size,), (Axis.MLP,), (Axis.EMBED,), use_bias=False, name="mlp_out")

        normed = [norm_modulate(x_BSD, shift, scale) for x_BSD in streams]
        triples = [qkv(y_BSD, angle) for y_BSD, angle in zip(normed, angles, strict=True)]
        attended = joint_attention(self, *triples) if len(triples) == 2 else [attention(self)(*triples[0])]
        streams = [
            add_gated(x_BSD, gate, proj(attn_BShd) + mlp_out(gelu(mlp_in(y_BSD))))
            for x_BSD, y_BSD, attn_BShd in zip(streams, normed, attended, strict=True)
        ]
        return self.layout.place_streams(streams), None


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
    """x_BSD -> q, k, v (B, S, h, d), q and k RMS-normalised per head and rotated; a stream may follow another."""

    cfg: MMDiTConfig
    use_bias: bool

    @nn.compact
    def __call__(self, x_BSD: jax.Array, angle: Angle) -> QKVTriple:
        cfg = self.cfg
        shape, axes = (3, cfg.num_heads, cfg.head_dim), (Axis.QKV, *HEAD_AXES)
        qkv_BS3hd = dense(cfg)(shape, (Axis.EMBED,), axes, use_bias=self.use_bias, name="qkv")(x_BSD)
        q_BShd = RotaryNorm(name="query_norm")(qkv_BS3hd[:, :, 0], *angle)
        k_BShd = RotaryNorm(name="key_norm")(qkv_BS3hd[:, :, 1], *angle)
        return q_BShd, k_BShd, qkv_BS3hd[:, :, 2]


def joint_attention(block: nn.Module, txt: QKVTriple, img: QKVTriple) -> tuple[jax.Array, jax.Array]:
    """Attention of text and of video over both: (out of text, out of video), each (B, its tokens, h, d).

    block: one of the blocks above, for its configuration and layout. txt, img: q, k and v of either.
    """
    layout = block.layout
    if layout.joined:
        q, k, v = (layout.join(*pair) for pair in zip(txt, img, strict=True))
        return layout.part(attention(block)(q, k, v))
    return attention(block)(*img, shared=txt)[::-1]


def attention(block: nn.Module) -> partial:
    """`attend` as the configuration of the block chooses it, without the padding of the block's layout."""
    cfg = block.cfg
    # Parameters are initialised from one token, on whatever machine there is: any attention will do.
    impl = "dense" if block.is_initializing() else cfg.attention
    return partial(attend, impl=impl, kernel=cfg.attention_kernel, valid=block.layout.valid())
