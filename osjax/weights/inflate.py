"""An image DC-AE as the start of a Video DC-AE: flat kernels become the middle taps of kernels with an extent in time.

The outer taps start at zero, so a convolution gives every frame what it gave the image. Where nothing else looks along
time the video model is the image model, frame by frame. Two things do: linear attention, which takes the frames of a
clip together, and resampling in time, whose shortcuts regroup channels over frames. Neither does on a single frame, so
images come out the same from any inflated model; clips do where it has neither.
"""

from dataclasses import replace

import numpy as np

from osjax import weights
from osjax.errors import UserError
from osjax.models import shapes
from osjax.models.dcae.config import DCAEConfig
from osjax.weights.leaves import Leaves
from osjax.weights.rules import Path, Window, extent


def image_config(cfg: DCAEConfig) -> DCAEConfig:
    """The image model whose weights fit the video model `cfg`: the same levels, each frame by itself.

    UserError for a model that is no Video DC-AE.
    """
    if not isinstance(cfg, DCAEConfig) or not (cfg.encoder.is_video and cfg.decoder.is_video):
        raise UserError("start.inflate is for Video DC-AEs: set it to False", status=2)
    encoder = replace(cfg.encoder, is_video=False, temporal_downsample=())
    decoder = replace(cfg.decoder, is_video=False, temporal_upsample=())
    return replace(cfg, time_compression_ratio=1, encoder=encoder, decoder=decoder, chunk_frames=0)


def inflated(cfg: DCAEConfig, source: Leaves) -> Leaves:
    """The leaves of the video model `cfg` from `source`, those of an image model. UserError lists what does not fit."""
    wanted = weights.leaf_shapes(cfg)
    if problems := shapes.differences(source.shapes, wanted, _fits):
        raise UserError(
            f"these weights do not inflate to the model: {shapes.listed(problems, 5)}. "
            "Give the image model's other keys in start.config."
        )

    def read(path: Path, window: Window) -> np.ndarray:
        if source.shapes[path] == wanted[path]:
            return source.read(path, window)
        time, *rest = window
        out, middle = np.zeros(extent(window), source.dtypes[path]), wanted[path][0] // 2
        if time.start <= middle < time.stop:
            out[middle - time.start] = source.read(path, (slice(0, 1), *rest))[0]
        return out

    return Leaves(wanted, source.dtypes, read)


def _fits(flat: shapes.Shape | None, wanted: shapes.Shape | None) -> bool:
    """Whether a leaf is the one that is wanted, or a kernel (1, kh, kw, in, out) where one of several taps is."""
    return flat == wanted or (wanted is not None and len(wanted) == 5 and flat == (1, *wanted[1:]))
