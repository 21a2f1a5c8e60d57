"""PSNR against its definition."""

import numpy as np
import pytest

from osjax.errors import UserError
from osjax.evals.recon import psnr


def test_psnr_of_a_known_difference():
    want = np.full((2, 3, 4, 4, 3), 100, np.uint8)
    got = want.copy()
    got[1] += 10
    assert psnr(got, want) == pytest.approx([100.0, 20 * np.log10(255 / 10)])


def test_psnr_refuses_floats_and_other_shapes():
    clip = np.zeros((1, 2, 4, 4, 3), np.uint8)
    with pytest.raises(UserError, match="uint8 arrays of one shape"):
        psnr(clip.astype(np.float32), clip)
    with pytest.raises(UserError, match="uint8 arrays of one shape"):
        psnr(clip[:, :1], clip)
