"""Weight maps of the MMDiT: byte-equal round trips, and strict loading."""

import numpy as np
import pytest

from osjax import weights
from osjax.errors import UserError
from tests.models.test_mmdit import LAYOUTS, config, tensors


@pytest.mark.parametrize("name", LAYOUTS)
def test_round_trip_is_byte_equal(name):
    cfg, given = config(name), tensors(name)
    back = weights.to_torch(cfg, weights.from_torch(cfg, given, layout=LAYOUTS[name]), layout=LAYOUTS[name])
    assert back.keys() == given.keys()
    assert all(back[k].tobytes() == given[k].tobytes() for k in given)


def test_wrong_rotary_layout_gives_other_params():
    cfg, given = config("mmdit_b"), tensors("mmdit_b")
    flux = weights.from_torch(cfg, given, layout=weights.FLUX)
    half = weights.from_torch(cfg, given, layout=weights.Layout(fused_qkv=True, interleaved_rope=False))
    a, b = (p["single_blocks"]["attn"]["qkv"]["kernel"] for p in (flux, half))
    assert not np.array_equal(a[:, :, 0], b[:, :, 0])
    assert np.array_equal(a[:, :, 2], b[:, :, 2])  # v does not rotate


def test_all_misfits_are_listed_in_one_error():
    cfg, given = config("mmdit_a"), tensors("mmdit_a")
    del given["img_in.bias"]
    given["surplus"] = np.zeros(3, np.float32)
    given["txt_in.bias"] = np.zeros(7, np.float32)
    with pytest.raises(UserError) as error:
        weights.from_torch(cfg, given)
    for text in ("missing img_in.bias", "unexpected surplus", "txt_in.bias has shape (7,)"):
        assert text in str(error.value)
