"""Resizing and cropping against the original's."""

import numpy as np
import pytest

from osjax.data import transforms
from tests import golden

ARRAYS, SETTINGS = golden.read("data_resize_crop")
CASES = list(enumerate(SETTINGS["cases"]))


def _frames(number):
    return ARRAYS[f"{number}.in.frames_uint8"].transpose(0, 2, 3, 1)


@pytest.mark.parametrize("number, case", CASES)
def test_resized_clips_match_the_original(number, case):
    want = ARRAYS[f"{number}.clip"].transpose(0, 2, 3, 1)
    got = transforms.resize_crop_clip(_frames(number), *case["target"]) / 255
    assert golden.relative_error(got, want) < 1e-5
    # A crop that lies one pixel off must not pass.
    assert golden.relative_error(np.roll(got, 1, axis=1 if case["target"][0] < case["target"][1] else 2), want) > 1e-2


@pytest.mark.parametrize("number, case", CASES)
def test_resized_images_match_the_original_within_a_grey_level(number, case):
    want = ARRAYS[f"{number}.image_uint8_hwc"].astype(int)
    image = _frames(number)[0]
    got = transforms.resize_crop_image(image, *case["target"]).astype(int)
    assert got.shape == want.shape and np.abs(got - want).max() <= 1
    # The filter of clips is another one.
    clip = transforms.resize_crop_clip(image[None], *case["target"])[0]
    assert np.abs(clip - want).max() > 1


@pytest.mark.parametrize("number, case", CASES)
def test_whole_levels_are_those_of_the_original_rounded(number, case):
    want = ARRAYS[f"{number}.clip"].transpose(0, 2, 3, 1) * 255
    got = transforms.resize_crop_clip(_frames(number), *case["target"], exact=False)
    assert got.dtype == np.uint8 and np.abs(got - want).max() <= 1 and np.abs(got - want).mean() < 0.35
    assert np.abs(np.roll(got, 1, axis=2) - want).mean() > 1


def test_levels_become_minus_one_to_one():
    np.testing.assert_array_equal(transforms.unit(np.array([0, 255], np.uint8)), [-1, 1])
    assert transforms.unit(np.array([127.5])).dtype == np.float32


def test_a_clip_of_the_wanted_size_stays_as_it_is():
    video = np.random.default_rng(0).integers(0, 256, (2, 16, 24, 3), dtype=np.uint8)
    np.testing.assert_array_equal(transforms.resize_crop_clip(video, 16, 24), video)
