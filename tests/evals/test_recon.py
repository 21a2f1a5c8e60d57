"""Measures of reconstruction against their definitions."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from osjax.errors import UserError
from osjax.evals import recon
from osjax.evals.recon import psnr
from tests.models import lpips_weights


def clips(seed: int, *shape: int) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, shape).astype(np.uint8)


def test_psnr_of_a_known_difference():
    want = np.full((2, 3, 4, 4, 3), 100, np.uint8)
    got = want.copy()
    got[1] += 10
    assert psnr(got, want) == pytest.approx([100.0, 20 * np.log10(255 / 10)])


@pytest.mark.parametrize("measure", [psnr, recon.ssim, recon.flicker])
def test_measures_refuse_floats_and_other_shapes(measure):
    clip = np.zeros((1, 2, 12, 12, 3), np.uint8)
    with pytest.raises(UserError, match="uint8 arrays of one shape"):
        measure(clip.astype(np.float32), clip)
    with pytest.raises(UserError, match="uint8 arrays of one shape"):
        measure(clip[:, :1], clip)


def test_ssim_is_the_formula_with_a_gaussian_window():
    want, noise = clips(0, 2, 1, 24, 20, 3), np.random.RandomState(1).normal(0, 25, (2, 1, 24, 20, 3))
    got = np.clip(want + noise, 0, 255).astype(np.uint8)

    def blur(x):
        return gaussian_filter(x, 1.5, truncate=3.5)

    def of_channel(a, b):
        a, b = a.astype(np.float64), b.astype(np.float64)
        ma, mb = blur(a), blur(b)
        va, vb, vab = blur(a * a) - ma**2, blur(b * b) - mb**2, blur(a * b) - ma * mb
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        value = (2 * ma * mb + c1) * (2 * vab + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
        return value[5:-5, 5:-5].mean()

    expected = [np.mean([of_channel(got[b, 0, ..., c], want[b, 0, ..., c]) for c in range(3)]) for b in range(2)]
    np.testing.assert_allclose(recon.ssim(got, want), expected, rtol=1e-10)
    assert recon.ssim(want, want) == pytest.approx([1, 1]) and max(expected) < 0.99
    with pytest.raises(UserError, match="needs 11 or more"):
        recon.ssim(want[:, :, :8], want[:, :, :8])


def test_flicker_counts_what_comes_and_goes_and_not_what_stays():
    want = clips(0, 1, 4, 6, 6, 3) // 2
    steady, blinking = want + 10, want.copy()
    blinking[:, ::2] += 10
    assert recon.flicker(steady, want) == pytest.approx([0])
    assert recon.flicker(blinking, want) == pytest.approx([10])
    assert recon.flicker(want[:, :1], steady[:, :1]) == pytest.approx([0])


def test_an_error_map_lies_where_the_error_is():
    want = np.full((2, 4, 6, 3), 50, np.uint8)
    got = want.copy()
    got[1, 2, 5, 0] += 30
    error = recon.error_map(got, want)
    assert error[1, 2, 5] == pytest.approx(10) and error.sum() == pytest.approx(10)


def test_perceptual_distance_is_the_mean_of_the_frames():
    module, params = lpips_weights.load()
    distance = recon.lpips(module, params)
    want, got = clips(0, 1, 2, 16, 16, 3), clips(1, 1, 2, 16, 16, 3)
    each = [distance(got[:, t : t + 1], want[:, t : t + 1])[0] for t in range(2)]
    assert distance(got, want)[0] == pytest.approx(np.mean(each)) and abs(each[0] - each[1]) > 1e-4
    pixels = [x[:, :1].astype(np.float32) / 127.5 - 1 for x in (got, want)]
    assert each[0] == pytest.approx(float(module.apply({"params": params}, *pixels)[0, 0]), rel=1e-4)
    assert distance(want, want)[0] == pytest.approx(0, abs=1e-6)
