"""Where each tensor of the FLUX autoencoder lives in the Flax tree.

Source: Open-Sora opensora/models/vae/autoencoder_2d.py.
"""

from osjax.models.flux_ae import FluxAEConfig
from osjax.weights.rules import SAME, Op, Path, Rule, reshape, transpose


def table(cfg: FluxAEConfig) -> list[Rule]:
    """The rules of the model `cfg`: every tensor of the original's state dict."""
    last, widths, blocks = cfg.widths[-1], cfg.widths, cfg.num_res_blocks
    rules = _conv("encoder.conv_in", ("encoder", "conv_in"), cfg.in_channels, cfg.ch)
    before = cfg.ch
    for level, width in enumerate(widths):
        rules += _level("encoder.down", "encoder", level, blocks, before, width)
        before = width
        if level < len(widths) - 1:
            leaf = ("encoder", f"level{level}_down")
            rules += _conv(f"encoder.down.{level}.downsample.conv", leaf, width, width)
    rules += _ends("encoder", last, last, 2 * cfg.z_channels)
    rules += _conv("decoder.conv_in", ("decoder", "conv_in"), cfg.z_channels, last)
    before = last
    for level in reversed(range(len(widths))):
        rules += _level("decoder.up", "decoder", level, blocks + 1, before, widths[level])
        before = widths[level]
        if level > 0:
            leaf = ("decoder", f"level{level}_up")
            rules += _conv(f"decoder.up.{level}.upsample.conv", leaf, before, before)
    return rules + _ends("decoder", last, widths[0], cfg.out_ch)


def _level(torch: str, side: str, level: int, blocks: int, before: int, width: int) -> list[Rule]:
    rules = []
    for n in range(blocks):
        rules += _res_block(f"{torch}.{level}.block.{n}", (side, f"level{level}_block{n}"), before, width)
        before = width
    return rules


def _ends(side: str, middle: int, width: int, n_out: int) -> list[Rule]:
    """The middle, the last norm and the last convolution."""
    rules = [
        r for n in range(2) for r in _res_block(f"{side}.mid.block_{n + 1}", (side, f"middle_block{n}"), middle, middle)
    ]
    attention, leaf = f"{side}.mid.attn_1", (side, "middle_attention")
    rules += _norm(f"{attention}.norm", (*leaf, "norm"), middle)
    shape = (middle, middle, 1, 1)
    for name, ours in (("q", "q"), ("k", "k"), ("v", "v"), ("proj_out", "out")):
        weight = transpose(1, 0) @ reshape(shape, shape[:2])
        rules.append(Rule(f"{attention}.{name}.weight", shape, (*leaf, ours, "kernel"), weight))
        rules.append(Rule(f"{attention}.{name}.bias", (middle,), (*leaf, ours, "bias"), SAME))
    rules += _norm(f"{side}.norm_out", (side, "norm_out"), width)
    return rules + _conv(f"{side}.conv_out", (side, "conv_out"), width, n_out)


def _res_block(torch: str, leaf: Path, n_in: int, n_out: int) -> list[Rule]:
    rules = _norm(f"{torch}.norm1", (*leaf, "norm1"), n_in) + _norm(f"{torch}.norm2", (*leaf, "norm2"), n_out)
    rules += _conv(f"{torch}.conv1", (*leaf, "conv1"), n_in, n_out)
    rules += _conv(f"{torch}.conv2", (*leaf, "conv2"), n_out, n_out)
    if n_in != n_out:
        rules += _conv(f"{torch}.nin_shortcut", (*leaf, "shortcut"), n_in, n_out, 1)
    return rules


def _conv(torch: str, leaf: Path, n_in: int, n_out: int, size: int = 3) -> list[Rule]:
    shape = (n_out, n_in, size, size)
    return [
        Rule(f"{torch}.weight", shape, (*leaf, "kernel"), _kernel(shape)),
        Rule(f"{torch}.bias", (n_out,), (*leaf, "bias"), SAME),
    ]


def _kernel(shape: tuple[int, ...]) -> Op:
    """torch (out, in, h, w) -> flax (1, h, w, in, out)."""
    return transpose(2, 3, 4, 1, 0) @ reshape(shape, (*shape[:2], 1, *shape[2:]))


def _norm(torch: str, leaf: Path, width: int) -> list[Rule]:
    pairs = (("weight", "scale"), ("bias", "bias"))
    return [Rule(f"{torch}.{name}", (width,), (*leaf, "norm", ours), SAME) for name, ours in pairs]
