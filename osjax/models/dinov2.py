"""DINOv2, the self-supervised image transformer whose features autoencoder latents can be aligned with.

Source: Oquab et al. 2023, "DINOv2"; registers: Darcet et al. 2023, "Vision Transformers Need Registers". Weights come
from the user's files (`weights/dinov2.py`).
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from osjax.errors import UserError
from osjax.ops import stack
from osjax.ops.layers import Linear
from osjax.ops.parameter import logical, parameter
from osjax.types import Axis

NORM_EPS = 1e-6
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet pixels in [0, 1]
FFN = ("mlp", "swiglufused")
SIZES = {
    "s": {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "b": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "l": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
    "g": {"embed_dim": 1536, "depth": 40, "num_heads": 24, "ffn_layer": "swiglufused"},
}


@dataclass(frozen=True)
class DINOv2Config:
    """Field names are the original's; defaults are ViT-B/14. SIZES has the fields of all four.

    img_size: pixels of the square whose grid of patches has positions of its own; other grids interpolate them.
    num_register_tokens: 4 in the published variants with registers, which also interpolate positions differently.
    """

    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    ffn_layer: str = "mlp"
    img_size: int = 518
    patch_size: int = 14
    num_register_tokens: int = 0

    def __post_init__(self):
        if self.ffn_layer not in FFN:
            raise UserError(f"dinov2 ffn_layer {self.ffn_layer!r} is unknown: use one of {', '.join(FFN)}")
        if self.embed_dim % self.num_heads or self.img_size % self.patch_size:
            raise UserError(
                f"dinov2 embed_dim {self.embed_dim} must divide by num_heads {self.num_heads}, "
                f"and img_size {self.img_size} by patch_size {self.patch_size}"
            )

    @property
    def grid(self) -> int:
        """Patches along a side of the square that has positions of its own."""
        return self.img_size // self.patch_size

    @property
    def hidden(self) -> int:
        """Width of the feed-forward layer; the gated one has two thirds of it, rounded up to a multiple of 8."""
        wide = int(self.embed_dim * self.mlp_ratio)
        return wide if self.ffn_layer == "mlp" else (int(wide * 2 / 3) + 7) // 8 * 8


def bicubic(old: int, new: int, scale: float, antialias: bool) -> np.ndarray:
    """Resampling of a line of `old` samples to `new` of them as a matrix (new, old), float32.

    scale: new samples per old one, in the mapping of pixel centres. Without `antialias` edges repeat (coefficient
    -0.75); with it the kernel (-0.5) widens where it shrinks, and is cut off and renormalised at the edges.
    """
    a = -0.5 if antialias else -0.75
    widen = max(1 / scale, 1.0) if antialias else 1.0
    centre = (np.arange(new) + 0.5) / scale - 0.5
    matrix = np.zeros((new, old))
    for row, at in enumerate(centre):
        reach = int(np.ceil(2 * widen))
        taps = np.arange(int(np.floor(at)) - reach, int(np.floor(at)) + reach + 2)
        weights = _cubic((taps - at) / widen, a)
        if antialias:
            inside = (taps >= 0) & (taps < old)
            taps, weights = taps[inside], weights[inside] / weights[inside].sum()
        np.add.at(matrix[row], np.clip(taps, 0, old - 1), weights)
    return matrix.astype(np.float32)


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def _norm(name: str) -> nn.LayerNorm:
    return nn.LayerNorm(
        epsilon=NORM_EPS,
        scale_init=logical(nn.initializers.ones, Axis.NORM),
        bias_init=logical(nn.initializers.zeros, Axis.NORM),
        name=name,
    )


class Block(nn.Module):
    """Attention and feed-forward, each behind a norm, scaled per channel, and added to its input."""

    cfg: DINOv2Config

    @nn.compact
    def __call__(self, x_BND: jax.Array) -> tuple[jax.Array, None]:
        cfg = self.cfg
        D, h, d = cfg.embed_dim, cfg.num_heads, cfg.embed_dim // cfg.num_heads
        qkv = Linear((3, h, d), (Axis.EMBED,), (Axis.QKV, Axis.HEADS, Axis.HEAD_DIM), name="qkv")(_norm("norm1")(x_BND))
        q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=jnp.float32) * d**-0.5
        mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), v)
        mixed = Linear((D,), (Axis.HEADS, Axis.HEAD_DIM), (Axis.EMBED,), name="out")(mixed)
        x = x_BND + self._scaled("scale1", mixed)
        y = _norm("norm2")(x)
        wide = Linear((cfg.hidden,), (Axis.EMBED,), (Axis.MLP,), name="mlp_in")(y)
        if cfg.ffn_layer == "mlp":
            wide = nn.gelu(wide, approximate=False)
        else:
            wide = nn.silu(Linear((cfg.hidden,), (Axis.EMBED,), (Axis.MLP,), name="gate")(y)) * wide
        return x + self._scaled("scale2", Linear((D,), (Axis.MLP,), (Axis.EMBED,), name="mlp_out")(wide)), None

    def _scaled(self, name: str, y_BND: jax.Array) -> jax.Array:
        scale = parameter(self, name, logical(nn.initializers.constant(1e-5), Axis.NORM), (self.cfg.embed_dim,))
        return y_BND * scale[None, None]


class DINOv2(nn.Module):
    """`apply({"params": p}, x_BTHWC)` -> features of patches (B, T, H / patch, W / patch, D), float32.

    x: pixels in [-1, 1], each frame an image of its own; height and width are multiples of the patch, else UserError.
    `method="whole"` gives (class token (B, T, D), patches).
    """

    cfg: DINOv2Config

    def __call__(self, x_BTHWC: jax.Array) -> jax.Array:
        return self.whole(x_BTHWC)[1]

    @nn.compact
    def whole(self, x_BTHWC: jax.Array) -> tuple[jax.Array, jax.Array]:
        cfg = self.cfg
        B, T, H, W, _ = x_BTHWC.shape
        p, D = cfg.patch_size, cfg.embed_dim
        if H % p or W % p:
            raise UserError(f"DINOv2 takes multiples of {p} pixels, got {H}x{W}: resize before")
        rows, columns = H // p, W // p
        pixels = ((x_BTHWC.astype(jnp.float32) + 1) / 2 - jnp.array(MEAN)[None, None, None, None]) / jnp.array(STD)[
            None, None, None, None
        ]
        patches = pixels.reshape(B * T, rows, p, columns, p, 3).transpose(0, 1, 3, 2, 4, 5)
        patches = patches.reshape(B * T, rows * columns, p, p, 3)
        axes = (Axis.CONV_KERNEL, Axis.CONV_KERNEL, Axis.CONV_IN)
        x = Linear((D,), axes, (Axis.EMBED,), name="patch_embed")(patches)

        init = nn.initializers.normal(0.02)
        cls = parameter(self, "cls_token", logical(init, Axis.EMBED), (D,))
        table = parameter(self, "positions", logical(init, Axis.FEATURES, Axis.EMBED), (1 + cfg.grid**2, D))
        x = x + self._positions(table[1:], rows, columns)[None]
        first = [jnp.broadcast_to((cls + table[0])[None, None], (B * T, 1, D))]
        if cfg.num_register_tokens:
            shape = (cfg.num_register_tokens, D)
            registers = parameter(self, "registers", logical(init, Axis.FEATURES, Axis.EMBED), shape)
            first.append(jnp.broadcast_to(registers[None], (B * T, *shape)))
        x = jnp.concatenate([*first, x], axis=1)
        x = stack.run(self, Block, (cfg,), "blocks", stack.Stack(cfg.depth, jnp.float32), x, ())
        x = _norm("norm")(x)
        patches = x[:, 1 + cfg.num_register_tokens :]
        return x[:, 0].reshape(B, T, D), patches.reshape(B, T, rows, columns, D)

    def _positions(self, table_ND: jax.Array, rows: int, columns: int) -> jax.Array:
        """Positions of a grid of this size, (rows * columns, D)."""
        grid, registers = self.cfg.grid, bool(self.cfg.num_register_tokens)
        if rows == columns == grid:
            return table_ND
        # The published models without registers add 0.1 to the size before they divide by the grid's.
        extra = 0.0 if registers else 0.1
        down, across = (bicubic(grid, n, (n + extra) / grid, registers) for n in (rows, columns))
        square = table_ND.reshape(grid, grid, -1)
        return jnp.einsum("rg,cw,gwd->rcd", down, across, square, precision="highest").reshape(rows * columns, -1)


def example_inputs(cfg: DINOv2Config) -> tuple[jax.Array]:
    """The smallest input that `init` takes: one patch."""
    return (jnp.zeros((1, 1, cfg.patch_size, cfg.patch_size, 3)),)
