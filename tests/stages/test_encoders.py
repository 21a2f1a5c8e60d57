"""Encoding a batch a few clips at a time: the same latents, in the same places."""

import numpy as np
import pytest

from osjax.conditioning.text import TextEncoder
from osjax.parallel import host, mesh, sharding
from osjax.stages.cut_captions import CutCaptions
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


def test_captions_that_are_cut_are_counted_and_told_once(caplog):
    encoders = Encoders(None, None, TextEncoder(8, 3), "float32", mesh.make(8, 1, 1, 1), {})
    for texts in (["one two three four"], ["one two", ""], ["1 2 3 4 5", "a"]):
        encoders.encode_text(texts)
    assert not caplog.text
    encoders.cut_captions.tell(), encoders.cut_captions.tell()
    (record,) = caplog.records
    says = "2 of the first 4 captions are longer than the text encoder's 3 words"  # the null text is no caption
    assert says in record.getMessage()


def test_they_are_told_while_a_run_goes_on_and_not_where_all_fit(caplog):
    counted = CutCaptions(TextEncoder(8, 3).cut, enough=2)
    counted.add(["one two three"])
    counted.add(["one two three four", "five"])
    assert "1 of the first 3 captions" in caplog.text
    counted.add(["one two three four"])
    assert len(caplog.records) == 1
    short = CutCaptions(TextEncoder(8, 3).cut, enough=1)
    short.add(["one"])
    assert len(caplog.records) == 1
