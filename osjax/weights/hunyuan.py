"""Where each tensor of the HunyuanVideo autoencoder lives in the Flax tree (Open-Sora opensora/models/hunyuan_vae)."""

from osjax.models.hunyuan.config import HunyuanConfig
from osjax.weights.rules import LINEAR, SAME, Path, Rule, transpose

KERNEL = transpose(2, 3, 4, 1, 0)  # torch (out, in, t, h, w) -> flax (t, h, w, in, out)
UNIT = (1, 1, 1)


def table(cfg: HunyuanConfig) -> list[Rule]:
    """The rules of the model `cfg`: every tensor of the original's state dict."""
    latent = cfg.latent_channels
    return [
        *_half(cfg, "encoder", "down", cfg.block_out_channels, cfg.in_channels, 2 * latent),
        *_half(cfg, "decoder", "up", cfg.block_out_channels[::-1], latent, cfg.out_channels),
        *_conv("quant_conv", ("quant_conv",), 2 * latent, 2 * latent, 1),
        *_conv("post_quant_conv", ("post_quant_conv",), latent, latent, 1),
    ]


def _half(cfg: HunyuanConfig, side: str, way: str, widths: tuple[int, ...], n_in: int, n_out: int) -> list[Rule]:
    rules = _causal(f"{side}.conv_in", (side, "conv_in"), n_in, widths[0])
    before = widths[0]
    for level, width in enumerate(widths):
        torch, leaf = f"{side}.{way}_blocks.{level}", (side, f"level{level}")
        for n in range(cfg.layers_per_block + (way == "up")):
            rules += _res_block(f"{torch}.resnets.{n}", (*leaf, f"block{n}"), before, width)
            before = width
        if cfg.resampling(level) != UNIT:
            rules += _causal(f"{torch}.{way}samplers.0.conv", (*leaf, way), width, width)
    rules += _middle(cfg, f"{side}.mid_block", (side, "middle"), cfg.block_out_channels[-1])
    rules += _norm(f"{side}.conv_norm_out", (side, "norm_out"), widths[-1])
    return rules + _causal(f"{side}.conv_out", (side, "conv_out"), widths[-1], n_out)


def _middle(cfg: HunyuanConfig, torch: str, leaf: Path, width: int) -> list[Rule]:
    rules = [r for n in range(2) for r in _res_block(f"{torch}.resnets.{n}", (*leaf, f"block{n}"), width, width)]
    if not cfg.mid_block_add_attention:
        return rules
    attention, leaf = f"{torch}.attentions.0", (*leaf, "attention")
    rules += _norm(f"{attention}.group_norm", (*leaf, "norm"), width)
    for name, ours in (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "out")):
        rules.append(Rule(f"{attention}.{name}.weight", (width, width), (*leaf, ours, "kernel"), LINEAR))
        rules.append(Rule(f"{attention}.{name}.bias", (width,), (*leaf, ours, "bias"), SAME))
    return rules


def _res_block(torch: str, leaf: Path, n_in: int, n_out: int) -> list[Rule]:
    rules = _norm(f"{torch}.norm1", (*leaf, "norm1"), n_in) + _norm(f"{torch}.norm2", (*leaf, "norm2"), n_out)
    rules += _causal(f"{torch}.conv1", (*leaf, "conv1"), n_in, n_out)
    rules += _causal(f"{torch}.conv2", (*leaf, "conv2"), n_out, n_out)
    if n_in != n_out:
        rules += _causal(f"{torch}.conv_shortcut", (*leaf, "shortcut"), n_in, n_out, 1)
    return rules


def _causal(torch: str, leaf: Path, n_in: int, n_out: int, size: int = 3) -> list[Rule]:
    return _conv(f"{torch}.conv", (*leaf, "conv"), n_in, n_out, size)


def _conv(torch: str, leaf: Path, n_in: int, n_out: int, size: int) -> list[Rule]:
    return [
        Rule(f"{torch}.weight", (n_out, n_in, size, size, size), (*leaf, "kernel"), KERNEL),
        Rule(f"{torch}.bias", (n_out,), (*leaf, "bias"), SAME),
    ]


def _norm(torch: str, leaf: Path, width: int) -> list[Rule]:
    pairs = (("weight", "scale"), ("bias", "bias"))
    return [Rule(f"{torch}.{name}", (width,), (*leaf, "norm", ours), SAME) for name, ours in pairs]
