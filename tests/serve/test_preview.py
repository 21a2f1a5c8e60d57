"""Previews: a linear map from latents to colours finds the one that there is, and says nothing before it learnt."""

import io

import numpy as np
from PIL import Image

from osjax.serve.preview import Preview


def made(seed: int, gain: np.ndarray):
    """(latents, video) where each cell of 4 frames of 8x8 pixels has a colour that is linear in its latent."""
    rng = np.random.RandomState(seed)
    latents = rng.standard_normal((3, 6, 5, 4)).astype(np.float32)
    colours = np.clip(128 + latents @ gain, 0, 255)
    return latents, np.repeat(np.repeat(np.repeat(colours, 4, 0), 8, 1), 8, 2).astype(np.uint8)


def test_a_linear_map_is_found_from_one_video_and_holds_for_another():
    gain, preview = np.random.RandomState(9).uniform(-12, 12, (4, 3)), Preview(4)
    latents, video = made(0, gain)
    assert preview.frame(latents) is None and preview.png(latents) is None
    preview.learn(latents, video)
    other, want = made(1, gain)
    with Image.open(io.BytesIO(preview.png(other))) as image:
        got = np.asarray(image).astype(int)
    assert np.abs(got - want[4:8:4, ::8, ::8][0]).max() <= 3
    wrong = Preview(4)
    wrong.learn(*made(0, -gain))
    assert np.abs(wrong.frame(other).astype(int) - got).max() > 30


def test_a_video_of_one_colour_fits_a_map_and_sizes_that_do_not_divide_are_left_out():
    preview = Preview(4)
    preview.learn(np.zeros((2, 3, 3, 4), np.float32), np.zeros((8, 25, 24, 3), np.uint8))
    assert preview.frame(np.zeros((2, 3, 3, 4))) is None
    preview.learn(np.zeros((2, 3, 3, 4), np.float32), np.full((8, 24, 24, 3), 70, np.uint8))
    assert (preview.frame(np.zeros((2, 3, 3, 4))) == 70).all()
