"""Tiles against arrays from the original, and what users may get wrong about them."""

import numpy as np
import pytest

from osjax import models
from osjax.errors import UserError
from osjax.models import tiling
from osjax.models.autoencoder import Tiling
from tests import golden
from tests.models import dcae_tiny
from tests.models.dcae_tiny import channels_last


@pytest.mark.parametrize(
    "name",
    [
        "dcae_tiled_both",
        "dcae_tiled_quarter",
        pytest.param("dcae_tiled_spatial", marks=pytest.mark.long),
        pytest.param("dcae_tiled_temporal", marks=pytest.mark.long),
    ],
)
def test_tiled_encode_and_decode_match_golden(name):
    arrays, info = golden.read(name)
    model, params = dcae_tiny.load()
    model = model.clone(cfg=models.config("dcae", **info["config"]))
    assert model.tiling == Tiling(**info["config"]["tiling"])
    encoded = tiling.encode(model, params, channels_last(arrays["in.video"]))
    assert golden.relative_error(encoded, channels_last(arrays["encoded"])) < info["tolerance_relative"]
    decoded = tiling.decode(model, params, channels_last(arrays["in.latent"]))
    assert golden.relative_error(decoded, channels_last(arrays["decoded"])) < info["tolerance_relative"]


def test_one_piece_differs_from_tiles():
    arrays, info = golden.read("dcae_tiled_spatial")
    model, params = dcae_tiny.load()
    error = golden.relative_error(
        tiling.decode(model, params, channels_last(arrays["in.latent"])), channels_last(arrays["decoded"])
    )
    assert error > 100 * info["tolerance_relative"]
    np.testing.assert_allclose(error, info["difference_from_untiled"]["decoded"], rtol=0.5)


def test_a_video_of_one_tile_is_taken_in_one_piece():
    model, params = dcae_tiny.load()
    z = np.ones((1, 1, 1, 1, 16), np.float32)
    whole = dcae_tiny.run(model, params, z, method="decode")
    np.testing.assert_array_equal(tiling.decode(model, params, z, spatial_tile_size=64, temporal_tile_size=8), whole)


@pytest.mark.parametrize("T", [1, 3, 4, 5])
def test_frames_that_tiles_lose_are_known_before_they_are_decoded(T):
    arrays, info = golden.read("dcae_tiled_temporal")
    model, params = dcae_tiny.load()
    model = model.clone(cfg=models.config("dcae", **info["config"]))
    z = np.ones((1, T, 1, 1, arrays["in.latent"].shape[1]), np.float32)
    assert tiling.decoded_frames(model, T) == tiling.decode(model, params, z).shape[1]
    released = models.build(models.config("dcae", tiling={"use_temporal_tiling": True}))
    assert [tiling.decoded_frames(released, n // 4) for n in (48, 52, 56, 128)] == [48, 49, 56, 128]
    assert tiling.decoded_frames(models.build(models.config("dcae")), 13) == 52  # in one piece


def test_a_seam_fades_linearly_and_shrinks_to_the_shorter_tile():
    old, new = np.zeros((1, 1, 1, 4, 1), np.float32), np.ones((1, 1, 1, 6, 1), np.float32)
    blended = tiling._blend(old, new, axis=3, seam=8)
    np.testing.assert_allclose(blended[0, 0, 0, :, 0], [0, 0.25, 0.5, 0.75, 1, 1])
    np.testing.assert_array_equal(tiling._blend(old, new, axis=3, seam=0), new)


def test_tiles_that_split_a_latent_pixel_are_refused():
    model, params = dcae_tiny.load()
    x = np.zeros((1, 1, 96, 32, 3), np.float32)
    with pytest.raises(UserError, match="spatial_tile_size 64 with tile_overlap_factor 0.25 .* multiples of 32"):
        tiling.encode(model, params, x, spatial_tile_size=64, tile_overlap_factor=0.25)
    with pytest.raises(UserError, match="positive"):
        tiling.encode(model, params, x, spatial_tile_size=64, tile_overlap_factor=1.0)
    with pytest.raises(TypeError, match="tile_size; the settings are"):
        tiling.encode(model, params, x, tile_size=64)
