"""Encoding a batch a few clips at a time: the same latents, in the same places."""

import numpy as np
import pytest

from osjax.parallel import host, mesh, sharding
from osjax.stages.encoders import Encoders

CLIPS = np.random.default_rng(0).standard_normal((20, 1, 2, 2, 3)).astype(np.float32)


class Doubling:
    def __init__(self):
        self.rows = []

    def encode(self, video):
        self.rows.append(video.shape[0])
        return 2 * video


@pytest.mark.parametrize("at_once, rows", [(0, [20]), (5, [20]), (9, [20]), (2, [8, 8, 4]), (1, [4] * 5)])
def test_every_device_encodes_so_many_of_its_clips_at_once(at_once, rows):
    over, encoder = mesh.make(2, 2, 2, 1), Doubling()
    encoders = Encoders(None, lambda: encoder, None, "float32", over, {}, at_once)
    found = encoders._encode(host.to_global(CLIPS, over))
    assert encoder.rows == rows
    np.testing.assert_array_equal(found, 2 * CLIPS)
    assert found.sharding.is_equivalent_to(sharding.batch_sharding(over), 5)
