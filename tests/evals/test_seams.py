"""Where tiles are blended, found from how tiling itself blends them."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from osjax.evals.seams import seam_error, seam_lines, seam_mask
from osjax.models import tiling
from osjax.models.autoencoder import Stride, Tiling


class Numbered(nn.Module):
    """Decodes a tile to the distance from its own left edge: whatever is no such ramp is blended."""

    @property
    def stride(self):
        return Stride(1, 4)

    @property
    def tiling(self):
        return Tiling()

    def decode(self, z):
        B, T, H, W, _ = z.shape
        return jnp.broadcast_to(jnp.arange(4 * W, dtype=jnp.float32).reshape(1, 1, 1, -1, 1), (B, T, 4 * H, 4 * W, 1))


@pytest.mark.parametrize("overlap", [0.25, 0.5])
def test_seam_lines_are_where_tiling_blends(overlap):
    size, tile = 64, 16
    z = jnp.zeros((1, 1, 2, size // 4, 1))
    got = np.asarray(tiling.decode(Numbered(), {}, z, spatial_tile_size=tile, tile_overlap_factor=overlap))[
        0, 0, 0, :, 0
    ]
    keep = tile - int(tile * overlap)
    own = np.arange(size) % keep  # a line that one tile alone has made
    lines = seam_lines(size, tile, overlap)
    np.testing.assert_array_equal(got[~lines], own[~lines])
    assert (got[lines] != own[lines]).sum() > 0.5 * lines.sum() > 0


def test_a_video_of_one_tile_has_no_seam():
    assert not seam_lines(16, 16, 0.25).any() and seam_lines(17, 16, 0.25).any()
    assert seam_lines(32, 16, 0.0).nonzero()[0].tolist() == [15, 16]


def test_seam_error_separates_seams_from_the_rest():
    asked = Tiling(True, True, 16, 4, 0.25)
    mask = seam_mask((8, 32, 32), asked)
    whole = np.full((8, 32, 32, 3), 100, np.uint8)
    tiled = whole.copy()
    tiled[mask] += 12
    assert seam_error(tiled, whole, asked) == {"seam": 12.0, "elsewhere": 0.0, "largest": 12.0}
    assert seam_error(tiled, whole, Tiling())["seam"] is None and 0.1 < mask.mean() < 0.9
