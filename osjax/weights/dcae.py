"""Where each tensor of the original Video DC-AE lives in the Flax tree (Open-Sora opensora/models/dc_ae)."""

from osjax.models.dcae.blocks import GLU_RATIO
from osjax.models.dcae.config import HEAD_DIM, DCAEConfig, DecoderConfig, EncoderConfig, block_types, per_stage
from osjax.weights.rules import Op, Path, Rule, reshape, transpose


def table(cfg: DCAEConfig) -> list[Rule]:
    """The rules of the model `cfg`: every tensor of the original's state dict, encoder first.

    Image models have flat (out, in, h, w) kernels.
    """
    return _encoder(cfg.encoder) + _decoder(cfg.decoder)


def _encoder(cfg: EncoderConfig) -> list[Rule]:
    names, leaf = _Names("encoder", cfg.is_video), ("encoder",)
    first = 0 if cfg.depth_list[0] else 1
    if first == 0:
        rules = names.conv("project_in.conv", (*leaf, "project_in"), cfg.in_channels, cfg.width_list[0])
    else:
        rules = _down(
            names, "project_in", (*leaf, "project_in"), cfg.in_channels, cfg.width_list[1], cfg.downsample_block_type
        )
    for i in range(first, len(cfg.width_list)):
        rules += _blocks(names, cfg, i, first_op=0)
        if i < len(cfg.width_list) - 1:
            torch = f"stages.{i}.op_list.{cfg.depth_list[i]}" + (".main" if cfg.downsample_shortcut else "")
            path = (*leaf, f"stage{i}", "down")
            rules += _down(names, torch, path, cfg.width_list[i], cfg.width_list[i + 1], cfg.downsample_block_type)
    out = "project_out.main" if cfg.out_shortcut else "project_out"
    rules += names.norm(f"{out}.op_list.0", (*leaf, "out_norm"), cfg.width_list[-1], cfg.out_norm)
    last = (cfg.out_norm is not None) + (cfg.out_act is not None)
    path = (*leaf, "project_out")
    return rules + names.conv(f"{out}.op_list.{last}.conv", path, cfg.width_list[-1], cfg.latent_channels)


def _decoder(cfg: DecoderConfig) -> list[Rule]:
    names, leaf = _Names("decoder", cfg.is_video), ("decoder",)
    first = 0 if cfg.depth_list[0] else 1
    into = "project_in.main.conv" if cfg.in_shortcut else "project_in.conv"
    rules = names.conv(into, (*leaf, "project_in"), cfg.latent_channels, cfg.width_list[-1])
    for i in range(first, len(cfg.width_list)):
        resamples = i < len(cfg.width_list) - 1
        if resamples:
            torch = f"stages.{i}.op_list.0" + (".main" if cfg.upsample_shortcut else "")
            path = (*leaf, f"stage{i}", "up")
            rules += _up(names, torch, path, cfg.width_list[i + 1], cfg.width_list[i], cfg.upsample_block_type)
        rules += _blocks(names, cfg, i, first_op=int(resamples))
    width = cfg.width_list[first]
    rules += names.norm("project_out.op_list.0", (*leaf, "out_norm"), width, cfg.out_norm)
    last = (cfg.out_norm is not None) + (cfg.out_act is not None)
    torch, path = f"project_out.op_list.{last}", (*leaf, "project_out")
    if first == 0:
        return rules + names.conv(f"{torch}.conv", path, width, cfg.in_channels)
    return rules + _up(names, torch, path, width, cfg.in_channels, cfg.upsample_block_type)


def _blocks(names: "_Names", cfg: EncoderConfig | DecoderConfig, stage: int, first_op: int) -> list[Rule]:
    rules, norm = [], per_stage(cfg.norm, stage)
    for n, kind in enumerate(block_types(cfg, stage)):
        torch = f"stages.{stage}.op_list.{first_op + n}"
        leaf = (names.side, f"stage{stage}", f"block{n}")
        if kind == "ResBlock":
            rules += _res_block(names, torch, leaf, cfg.width_list[stage], norm)
        else:
            rules += _attention_block(names, torch, leaf, cfg.width_list[stage], norm, kind == "EViTS5_GLU")
    return rules


def _res_block(names: "_Names", torch: str, leaf: Path, width: int, norm: str | None) -> list[Rule]:
    return (
        names.conv(f"{torch}.main.conv1.conv", (*leaf, "conv1", "conv"), width, width)
        + names.conv(f"{torch}.main.conv2.conv", (*leaf, "conv2", "conv"), width, width, bias=False)
        + names.norm(f"{torch}.main.conv2.norm", (*leaf, "conv2", "norm"), width, norm)
    )


def _attention_block(
    names: "_Names", torch: str, leaf: Path, width: int, norm: str | None, multiscale: bool
) -> list[Rule]:
    qkv, wide = 3 * width, 2 * GLU_RATIO * width
    context, attention = f"{torch}.context_module.main", (*leaf, "attention")
    rules = names.conv(f"{context}.qkv.conv", (*attention, "qkv", "conv"), width, qkv, size=1, bias=False)
    if multiscale:
        depthwise, mix = (*attention, "aggregate_depthwise", "conv"), (*attention, "aggregate_mix", "conv")
        rules += names.conv(f"{context}.aggreg.0.0", depthwise, 1, qkv, size=5, bias=False)
        rules += names.conv(f"{context}.aggreg.0.1", mix, HEAD_DIM, qkv, size=1, bias=False)
    merged = width * (1 + multiscale)
    rules += names.conv(f"{context}.proj.conv", (*attention, "proj", "conv"), merged, width, size=1, bias=False)
    rules += names.norm(f"{context}.proj.norm", (*attention, "proj", "norm"), width, norm)
    local, gated = f"{torch}.local_module.main", (*leaf, "gated_conv")
    rules += names.conv(f"{local}.inverted_conv.conv", (*gated, "widen", "conv"), width, wide, size=1)
    rules += names.conv(f"{local}.depth_conv.conv", (*gated, "depthwise", "conv"), 1, wide)
    rules += names.conv(f"{local}.point_conv.conv", (*gated, "narrow", "conv"), wide // 2, width, size=1, bias=False)
    return rules + names.norm(f"{local}.point_conv.norm", (*gated, "narrow", "norm"), width, norm)


def _down(names: "_Names", torch: str, leaf: Path, width: int, features: int, kind: str) -> list[Rule]:
    if kind == "Conv":
        return names.conv(f"{torch}.conv", (*leaf, "conv"), width, features)
    return names.conv(f"{torch}.conv.conv", (*leaf, "conv"), width, features // 4)


def _up(names: "_Names", torch: str, leaf: Path, width: int, features: int, kind: str) -> list[Rule]:
    features = features if kind == "InterpolateConv" else features * 4
    return names.conv(f"{torch}.conv.conv", (*leaf, "conv"), width, features)


class _Names:
    """Rules for the convolutions and norms of one side, encoder or decoder."""

    def __init__(self, side: str, video: bool):
        self.side, self.video = side, video

    def conv(self, torch: str, leaf: Path, width: int, features: int, size: int = 3, bias: bool = True) -> list[Rule]:
        """width: channels that each output sees, so 1 for a depthwise convolution."""
        shape = (features, width) + (size,) * (3 if self.video else 2)
        weight = Rule(f"{self.side}.{torch}.weight", shape, (*leaf, "kernel"), self._kernel(shape))
        return [weight] + ([Rule(f"{self.side}.{torch}.bias", (features,), (*leaf, "bias"))] if bias else [])

    def norm(self, torch: str, leaf: Path, width: int, kind: str | None) -> list[Rule]:
        if kind is None:
            return []
        pairs = (("weight", "scale"), ("bias", "bias"))
        return [Rule(f"{self.side}.{torch}.{name}", (width,), (*leaf, ours)) for name, ours in pairs]

    def _kernel(self, shape: tuple[int, ...]) -> Op:
        to_volume = reshape(shape, shape if self.video else (*shape[:2], 1, *shape[2:]))
        return transpose(2, 3, 4, 1, 0) @ to_volume
