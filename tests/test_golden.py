"""The weights of the parity data are numpy's own numbers."""

import numpy as np
import pytest

from tests import golden


@pytest.mark.parametrize("seed, count", [(0, 1), (7, 2), (2**32 - 1, 1001), (3, 300_001)])
def test_normal_numbers_are_those_of_numpy_bit_for_bit(seed, count):
    want = np.random.RandomState(seed).standard_normal(count).astype(np.float32)
    np.testing.assert_array_equal(golden.standard_normal(seed, count), want)
