"""Shape of a Video DC-AE. Defaults are the released dc-ae-f32t4c128; field names are the original's.

Source: Open-Sora opensora/models/dc_ae/models/dc_ae.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TypeVar

from osjax.errors import UserError
from osjax.models.autoencoder import LatentScale, Stride, Tiling

BLOCKS = ("ResBlock", "EViT_GLU", "EViTS5_GLU")
NORMS = (None, "rms2d", "rms3d", "ln2d")
ACTIVATIONS = (None, "relu", "relu6", "hswish", "silu", "gelu")
Value = TypeVar("Value")
HEAD_DIM = 32  # channels of one linear attention head

_RELEASED_BLOCKS = ("ResBlock",) * 3 + ("EViTS5_GLU",) * 3
_RELEASED_WIDTHS = (128, 256, 512, 512, 1024, 1024)
_RELEASED_TIME = (False, False, False, True, True, False)


@dataclass(frozen=True)
class EncoderConfig:
    """Stages from pixels to latents. A stage is `depth` blocks of `width` channels, then a downsampling by two.

    A first stage of depth 0 has no blocks and no width of its own: the input convolution halves the picture instead.
    temporal_downsample: per stage, whether its downsampling also halves the frames; empty means never.
    """

    in_channels: int | None = None  # None: the autoencoder's
    latent_channels: int | None = None
    width_list: tuple[int, ...] = _RELEASED_WIDTHS
    depth_list: tuple[int, ...] = (2, 2, 2, 3, 3, 3)
    block_type: str | tuple[str, ...] = _RELEASED_BLOCKS
    norm: str | tuple[str, ...] = "rms3d"
    act: str | tuple[str, ...] = "silu"
    downsample_block_type: str = "Conv"
    downsample_match_channel: bool = True
    downsample_shortcut: str | None = "averaging"
    out_norm: str | None = None
    out_act: str | None = None
    out_shortcut: str | None = "averaging"
    double_latent: bool = False
    is_video: bool = True
    temporal_downsample: tuple[bool, ...] = _RELEASED_TIME

    def __post_init__(self):
        _lists_to_tuples(self)
        _check_stages(self, "encoder", self.temporal_downsample, self.downsample_match_channel)
        kinds = ("Conv",) if self.is_video else ("Conv", "ConvPixelUnshuffle")
        _check_choice("encoder.downsample_block_type", self.downsample_block_type, kinds)
        _check_choice("encoder.downsample_shortcut", self.downsample_shortcut, (None, "averaging"))
        _check_choice("encoder.out_shortcut", self.out_shortcut, (None, "averaging"))
        if self.double_latent:
            raise UserError(
                "encoder.double_latent must be False: the DC-AE has no posterior that its decoder could take."
            )


@dataclass(frozen=True)
class DecoderConfig:
    """Stages from latents to pixels, listed from the picture inwards as in the encoder, and run in reverse."""

    in_channels: int | None = None
    latent_channels: int | None = None
    in_shortcut: str | None = "duplicating"
    width_list: tuple[int, ...] = _RELEASED_WIDTHS
    depth_list: tuple[int, ...] = (3, 3, 3, 3, 3, 3)
    block_type: str | tuple[str, ...] = _RELEASED_BLOCKS
    norm: str | tuple[str, ...] = "rms3d"
    act: str | tuple[str, ...] = "silu"
    upsample_block_type: str = "InterpolateConv"
    upsample_match_channel: bool = True
    upsample_shortcut: str | None = "duplicating"
    out_norm: str | None = "rms3d"
    out_act: str | None = "relu"
    is_video: bool = True
    temporal_upsample: tuple[bool, ...] = _RELEASED_TIME

    def __post_init__(self):
        _lists_to_tuples(self)
        _check_stages(self, "decoder", self.temporal_upsample, self.upsample_match_channel)
        kinds = ("InterpolateConv",) if self.is_video else ("InterpolateConv", "ConvPixelShuffle")
        _check_choice("decoder.upsample_block_type", self.upsample_block_type, kinds)
        _check_choice("decoder.upsample_shortcut", self.upsample_shortcut, (None, "duplicating"))
        _check_choice("decoder.in_shortcut", self.in_shortcut, (None, "duplicating"))


@dataclass(frozen=True)
class DCAEConfig:
    """The whole autoencoder. `encoder`, `decoder` and `tiling` may be given as dicts; unknown keys raise TypeError.

    base: the release whose values stand where nothing else is given.
    scaling_factor: latents are the encoder's output divided by it; None means 1.
    tiling: what `models.tiling.encode` and `.decode` do; the model's own methods take a video in one piece.
    chunk_frames: frames of the chunks that know nothing of later ones; 0, as released, lets all frames see each other.
    """

    in_channels: int = 3
    latent_channels: int = 128
    time_compression_ratio: int = 4
    spatial_compression_ratio: int = 32
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    scaling_factor: float | None = None
    tiling: Tiling = field(default_factory=Tiling)
    chunk_frames: int = 0
    base: str = "dc-ae-f32t4c128"

    def __post_init__(self):
        _check_choice("base", self.base, ("dc-ae-f32t4c128",))
        for name, kind in (("encoder", EncoderConfig), ("decoder", DecoderConfig)):
            object.__setattr__(self, name, self._complete(getattr(self, name), kind))
        if isinstance(self.tiling, Mapping):
            object.__setattr__(self, "tiling", Tiling(**self.tiling))
        self._check_ratios()
        _check_shortcuts(self.encoder, "encoder")
        _check_shortcuts(self.decoder, "decoder")
        if self.chunk_frames:
            self._check_chunk_size()

    def _complete(self, part, kind):
        """The part as a dataclass, with the autoencoder's channels in it."""
        values = dict(part) if isinstance(part, Mapping) else {f.name: getattr(part, f.name) for f in fields(part)}
        for name in ("in_channels", "latent_channels"):
            if values.get(name) is None:
                values[name] = getattr(self, name)
        return kind(**values)

    def _check_ratios(self):
        sides = {"encoder": self.encoder.temporal_downsample, "decoder": self.decoder.temporal_upsample}
        for side, temporal in sides.items():
            part = getattr(self, side)
            time = 2 ** sum(temporal) if part.is_video else 1
            space = 2 ** (len(part.width_list) - 1)
            if (time, space) != (self.time_compression_ratio, self.spatial_compression_ratio):
                raise UserError(
                    f"the {side}'s stages compress {time}x in time and {space}x in space, the config says "
                    f"{self.time_compression_ratio}x and {self.spatial_compression_ratio}x: "
                    "set time_compression_ratio and spatial_compression_ratio, or change the stages."
                )

    def _check_chunk_size(self):
        least = 2 * self.time_compression_ratio  # so that a chunk of latents is never taken for an image
        if self.chunk_frames < least or self.chunk_frames % self.time_compression_ratio:
            raise UserError(
                f"chunk_frames is {self.chunk_frames}: make it 0 or a multiple of {self.time_compression_ratio} from "
                f"{least} on"
            )
        if not (self.encoder.is_video and self.decoder.is_video):
            raise UserError("chunk_frames is for video models: set it to 0 where is_video is False")

    def check_chunks(self, frames: int) -> None:
        """UserError for a number of frames that is neither 1 nor whole chunks."""
        if self.chunk_frames and frames != 1 and frames % self.chunk_frames:
            nearest = max(1, round(frames / self.chunk_frames)) * self.chunk_frames
            raise UserError(
                f"{frames} frames are no whole chunks of {self.chunk_frames}: the nearest valid number is {nearest}."
            )

    @property
    def stride(self) -> Stride:
        return Stride(self.time_compression_ratio, self.spatial_compression_ratio)

    @property
    def latent_scale(self) -> LatentScale:
        """How latents are normalised: divided by `scaling_factor`, without a shift."""
        return LatentScale(1.0 if self.scaling_factor is None else 1.0 / self.scaling_factor)

    def scale_fields(self, scale: LatentScale) -> dict[str, float]:
        """The field that gives the latents this scale; its shift is left out, as the model has none."""
        return {"scaling_factor": 1.0 / float(scale.scale)}


def per_stage(value: Value | tuple[Value, ...], stage: int) -> Value:
    """One value for all stages, or a tuple of one value each."""
    return value[stage] if isinstance(value, tuple) else value


def _lists_to_tuples(part) -> None:
    for f in fields(part):
        value = getattr(part, f.name)
        if isinstance(value, list):
            object.__setattr__(part, f.name, tuple(tuple(v) if isinstance(v, list) else v for v in value))


def _check_choice(name: str, value, choices) -> None:
    if value not in choices:
        raise UserError(f"{name} is {value!r}: choose one of {', '.join(map(repr, choices))}.")


def _check_stages(part, side: str, temporal: tuple[bool, ...], match_channel: bool) -> None:
    stages = len(part.width_list)
    lists = {"depth_list": part.depth_list, "block_type": part.block_type, "norm": part.norm, "act": part.act}
    lists["temporal_downsample" if side == "encoder" else "temporal_upsample"] = temporal or part.width_list
    for name, value in lists.items():
        if isinstance(value, tuple) and len(value) != stages:
            raise UserError(f"{side}.{name} has {len(value)} entries for {stages} stages: give one per stage.")
    if stages < 2 or min(part.depth_list[1:]) < 1:
        raise UserError(f"{side}.depth_list is {part.depth_list}: only the first stage may have depth 0.")
    if temporal and (temporal[-1] or (temporal[0] and part.depth_list[0] == 0)):
        raise UserError(f"{side}: the last stage, or a first stage of depth 0, cannot resample time; set it to False.")
    used = part.width_list if part.depth_list[0] else part.width_list[1:]
    if not match_channel and len(set(used)) > 1:
        raise UserError(f"{side}: without matched channels every width must be the same, not {used}.")
    for stage in range(stages):
        _check_choice(f"{side}.norm", per_stage(part.norm, stage), NORMS)
        _check_choice(f"{side}.act", per_stage(part.act, stage), ACTIVATIONS)
        if len(block_types(part, stage)) != part.depth_list[stage]:
            raise UserError(f"{side}.block_type of stage {stage} must name {part.depth_list[stage]} blocks.")
        for block in block_types(part, stage):
            _check_choice(f"{side}.block_type", block, BLOCKS)
            if block != "ResBlock" and part.width_list[stage] % HEAD_DIM:
                raise UserError(
                    f"{side}.width_list has {part.width_list[stage]} at stage {stage}, whose attention needs a "
                    f"multiple of {HEAD_DIM}: change the width, or use block_type ResBlock there."
                )
    _check_choice(f"{side}.out_norm", part.out_norm, NORMS)
    _check_choice(f"{side}.out_act", part.out_act, ACTIVATIONS)


def _check_shortcuts(part, side: str) -> None:
    """Shortcuts without parameters average or repeat whole channels."""
    encoder = isinstance(part, EncoderConfig)
    temporal = part.temporal_downsample if encoder else part.temporal_upsample
    kept = part.downsample_shortcut if encoder else part.upsample_shortcut
    first = 0 if part.depth_list[0] else 1
    for i in range(first, len(part.width_list) - 1) if kept else ():
        outer, inner = part.width_list[i : i + 2]
        cell = 8 if temporal and temporal[i] else 4
        if outer * cell % inner:
            raise UserError(
                f"{side}.width_list has {outer} at stage {i} and {inner} behind it, whose shortcut needs a divisor of "
                f"{outer * cell}: change one of them, or set {'downsample' if encoder else 'upsample'}_shortcut to None"
            )
    if (part.out_shortcut if encoder else part.in_shortcut) and part.width_list[-1] % part.latent_channels:
        raise UserError(
            f"{side}.width_list ends with {part.width_list[-1]}, whose shortcut needs a multiple of the "
            f"{part.latent_channels} latent channels: change one of them, or set "
            f"{'out' if encoder else 'in'}_shortcut to None"
        )


def block_types(part: EncoderConfig | DecoderConfig, stage: int) -> tuple[str, ...]:
    """Block types of one stage, one per block."""
    kind = per_stage(part.block_type, stage)
    return kind if isinstance(kind, tuple) else (kind,) * part.depth_list[stage]
