"""Settings of the image that text to image to video begins with."""

import pytest

from osjax.sampling.settings import T2I2V, SampleSettings
from osjax.sampling.t2i2v import image_settings


@pytest.mark.parametrize(
    "asked, aspect, size",
    [
        ({"aspect_ratio": "16:9"}, "16:9", (576, 1024)),
        ({"aspect_ratio": "4:3"}, "4:3", (672, 880)),
        ({"aspect_ratio": "9:16"}, "9:16", (1024, 576)),
        ({"height": 192, "width": 336}, "16:9", (576, 1024)),
    ],
)
def test_images_have_a_size_of_the_training_table(asked, aspect, size):
    still = image_settings(SampleSettings(mode=T2I2V, image_resolution="768px", **asked))
    assert (still.aspect_ratio, (still.height, still.width), still.frames) == (aspect, size, 1)


def test_an_aspect_that_the_training_table_lacks_takes_the_nearest_that_it_has():
    still = image_settings(SampleSettings(mode=T2I2V, image_resolution="256px", aspect_ratio="1.85:1"))
    assert (still.aspect_ratio, still.height, still.width) == ("16:9", 192, 336)


def test_videos_have_another_table():
    assert SampleSettings(resolution="768px", aspect_ratio="4:3").size(16) == (656, 880)
