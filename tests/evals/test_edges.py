"""Of sharp outlines all is kept, of blurred ones less, whatever the background does."""

import numpy as np
import pytest
from scipy import ndimage

from osjax.data import clips
from osjax.evals import edges


@pytest.fixture(scope="module")
def drawn():
    specs = clips.specs(6, 3, clips.combinations())
    return specs, np.stack([clips.render(spec, 64) for spec in specs])


def test_a_copy_keeps_all_and_an_empty_picture_nothing(drawn):
    specs, videos = drawn
    assert edges.kept(videos, videos, specs) == 1
    assert edges.kept(np.full_like(videos, 90), videos, specs) == 0


def test_a_blur_of_outlines_costs_what_it_flattens_and_one_of_the_background_nothing(drawn):
    specs, videos = drawn
    soft = ndimage.gaussian_filter(videos.astype(float), (0, 0, 2, 2, 0)).astype(np.uint8)
    near = np.stack([np.abs(clips.outlines(spec, 64)) * 64 < 4 for spec in specs])[..., None]
    assert 0.2 < edges.kept(soft, videos, specs) < 0.5
    assert edges.kept(np.where(near, videos, soft), videos, specs) == pytest.approx(1, abs=0.01)
    assert edges.kept(np.where(near, soft, videos), videos, specs) < 0.5
