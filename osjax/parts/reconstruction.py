"""The config keys of `osjax eval recon`."""

from dataclasses import dataclass, replace

from osjax.errors import UserError
from osjax.models.autoencoder import Tiling
from osjax.parts.autoencoder import AutoencoderKeys
from osjax.parts.groups import refuse


@dataclass(frozen=True)
class AutoencoderChoice(AutoencoderKeys):
    """The autoencoder that is measured."""

    workdir: str | None = None  # of a finished run: what was trained there, on its held-out clips


@dataclass(frozen=True)
class VideoKeys:
    """The videos that are reproduced."""

    source: str | None = None  # a video, a folder of them, a table, or a data set of `osjax data build`
    frames: int = 32  # of each video; longer ones are cut, shorter ones left out
    height: int = 256  # pixels; videos are scaled to cover and centre-cropped
    width: int = 256
    fps_max: float = 24.0  # frames are left out by whole factors down to this rate
    limit: int = 0  # the first so many videos; 0: all

    def __post_init__(self):
        if min(self.frames, self.height, self.width) < 1 or self.limit < 0 or not self.fps_max > 0:
            raise UserError("frames, height, width and fps_max must be positive, limit 0 or more")


@dataclass(frozen=True)
class TilingKeys:
    """Tiles to encode and decode by, whatever the model's config asks for."""

    spatial_tile_size: int = 0  # pixels; 0: not tiled
    temporal_tile_size: int = 0  # frames
    tile_overlap_factor: float = 0.25
    compare: bool = True  # where tiled, also in one piece, for the error of the seams

    def __post_init__(self):
        if min(self.spatial_tile_size, self.temporal_tile_size) < 0 or not 0 <= self.tile_overlap_factor < 1:
            raise UserError("tile sizes must be 0 or more, tile_overlap_factor a share below 1")
        if not (self.spatial_tile_size or self.temporal_tile_size):
            read = ("spatial_tile_size", "temporal_tile_size")
            refuse(self, "tiling", read, "tiling.spatial_tile_size and tiling.temporal_tile_size are 0")

    @property
    def asked(self) -> Tiling:
        """Tiles in the form that `models/tiling.py` takes; what is not tiled is off."""
        made = Tiling(tile_overlap_factor=self.tile_overlap_factor)
        if self.spatial_tile_size:
            made = replace(made, use_spatial_tiling=True, spatial_tile_size=self.spatial_tile_size)
        if self.temporal_tile_size:
            made = replace(made, use_temporal_tiling=True, temporal_tile_size=self.temporal_tile_size)
        return made


@dataclass(frozen=True)
class ReconstructionKeys:
    """What `osjax eval recon` is told."""

    output: str = "runs/eval_recon"  # recon.json, recon.html, and an MP4 and a PNG of the first videos
    autoencoder: AutoencoderChoice = AutoencoderChoice()
    lpips: str | None = None  # its weights: a file or checkpoint, or a folder with vgg.pth and vgg16-397923af.pth
    data: VideoKeys = VideoKeys()
    tiling: TilingKeys = TilingKeys()
    show: int = 8  # videos that are also written to look at

    def __post_init__(self):
        if self.show < 0:
            raise UserError(f"show is {self.show}: give 0 or more")
