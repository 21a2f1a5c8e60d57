"""What tiling costs: how far a tiled reconstruction is from the whole one, at the seams and away from them."""

import numpy as np

from osjax.models.autoencoder import Tiling


def seam_lines(size: int, tile: int, overlap: float) -> np.ndarray:
    """Marks of those of `size` output lines that are blended from two tiles: (size,) bool, none where one holds all.

    tile: lines of a tile. overlap: the part of it, 0 to 1, that the next one shares. Tiles and lines are pixels or
    frames. Every tile but the last keeps tile - seam lines, so seams begin there.
    """
    lines = np.zeros(size, bool)
    seam = int(tile * overlap)
    if size > tile:
        for start in range(tile - seam, size, tile - seam):
            # Where tiles do not overlap the two lines at the cut are what an eye sees.
            lines[start - (seam == 0) : start + max(seam, 1)] = True
    return lines


def seam_mask(shape: tuple[int, int, int], tiling: Tiling) -> np.ndarray:
    """Marks of the pixels in any seam of a video that is decoded with this tiling: bool of its shape (T, H, W)."""
    mask = np.zeros(shape, bool)
    overlap = tiling.tile_overlap_factor
    if tiling.use_temporal_tiling:
        mask |= seam_lines(shape[0], tiling.temporal_tile_size, overlap)[:, None, None]
    if tiling.use_spatial_tiling:
        mask |= seam_lines(shape[1], tiling.spatial_tile_size, overlap)[None, :, None]
        mask |= seam_lines(shape[2], tiling.spatial_tile_size, overlap)[None, None, :]
    return mask


def seam_error(tiled_THWC: np.ndarray, whole_THWC: np.ndarray, tiling: Tiling) -> dict[str, float | None]:
    """Mean absolute difference of two videos, in grey levels, in seams and elsewhere (None where no such pixel is).

    tiled_THWC, whole_THWC: uint8, decoded with this tiling and without. `largest` is of any pixel. Elsewhere it is what
    a tile misses that sees less of the video; the excess in seams is their own.
    """
    difference = np.abs(tiled_THWC.astype(np.float64) - whole_THWC.astype(np.float64)).mean(-1)
    mask = seam_mask(difference.shape, tiling)
    return {
        "seam": float(difference[mask].mean()) if mask.any() else None,
        "elsewhere": float(difference[~mask].mean()) if (~mask).any() else None,
        "largest": float(difference.max()),
    }
