"""Sizes and choices of the HunyuanVideo autoencoder."""

from dataclasses import dataclass

from osjax.errors import UserError
from osjax.models.autoencoder import LatentScale, Stride, Tiling

# Fields of the original that change nothing in a forward pass, with the only value that is honest to accept.
NEUTRAL = {"act_fn": "silu", "use_slicing": False, "dropout": 0.0, "channel": False}


@dataclass(frozen=True)
class HunyuanConfig:
    """Field names are the original's (opensora/models/hunyuan_vae). Defaults: the released autoencoder.

    latent = scale_factor * (z - shift_factor). sample_size, sample_tsize: pixels and frames of a tile, where tiling is
    used. from_pretrained: kept for the original's configs; weights are loaded by osjax.weights.
    """

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 16
    layers_per_block: int = 2
    norm_num_groups: int = 32
    scale_factor: float = 0.476986
    shift_factor: float = 0.0
    time_compression_ratio: int = 4
    spatial_compression_ratio: int = 8
    mid_block_add_attention: bool = True
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    sample_size: int = 256
    sample_tsize: int = 64
    use_spatial_tiling: bool = False
    use_temporal_tiling: bool = False
    tile_overlap_factor: float = 0.25
    act_fn: str = "silu"
    use_slicing: bool = False
    dropout: float = 0.0
    channel: bool = False
    from_pretrained: str | None = None

    def __post_init__(self):
        object.__setattr__(self, "block_out_channels", tuple(self.block_out_channels))
        for name, value in NEUTRAL.items():
            if getattr(self, name) != value:
                raise UserError(f"hunyuan {name}={getattr(self, name)!r} is not supported: leave it at {value!r}")
        if self.time_compression_ratio not in (4, 8):
            raise UserError(
                f"hunyuan time_compression_ratio {self.time_compression_ratio} is not supported: use 4 or 8"
            )
        halvings = self.spatial_compression_ratio.bit_length() - 1
        if 2**halvings != self.spatial_compression_ratio or halvings >= len(self.block_out_channels):
            raise UserError(
                f"hunyuan spatial_compression_ratio {self.spatial_compression_ratio} needs to be a power of two below "
                f"2 ** {len(self.block_out_channels)} (the number of block_out_channels)"
            )
        for width in self.block_out_channels:
            if width % self.norm_num_groups:
                raise UserError(f"block_out_channels {width} does not divide into {self.norm_num_groups} norm groups")

    def resampling(self, level: int) -> tuple[int, int, int]:
        """Factors of (T, H, W) behind the blocks of the n-th level, of the encoder and of the decoder alike."""
        levels = len(self.block_out_channels)
        space = level < self.spatial_compression_ratio.bit_length() - 1
        time = space if self.time_compression_ratio == 8 else levels - 3 <= level < levels - 1
        return 1 + time, 1 + space, 1 + space

    @property
    def stride(self) -> Stride:
        return Stride(self.time_compression_ratio, self.spatial_compression_ratio, causal=True)

    @property
    def latent_scale(self) -> LatentScale:
        """How latents are normalised: scale_factor * (z - shift_factor)."""
        return LatentScale(self.scale_factor, self.shift_factor)

    def scale_fields(self, scale: LatentScale) -> dict[str, float]:
        """The fields that give the latents this scale and shift."""
        return {"scale_factor": float(scale.scale), "shift_factor": float(scale.shift)}

    @property
    def tiling(self) -> Tiling:
        return Tiling(
            self.use_spatial_tiling,
            self.use_temporal_tiling,
            self.sample_size,
            self.sample_tsize,
            self.tile_overlap_factor,
        )
