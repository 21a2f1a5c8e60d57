"""The real heads of LPIPS, in PyTorch's old file format, where the wheel of `lpips` is installed."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from osjax import models, weights
from osjax.weights import lpips
from osjax.weights.io import open_tensors
from tests.weights.test_lpips import published

SPEC = importlib.util.find_spec("lpips")  # found, not imported: it would bring PyTorch
pytestmark = pytest.mark.skipif(SPEC is None, reason="lpips is not installed")
WIDTHS = (64, 128, 256, 512, 512)


def heads():
    return open_tensors(Path(SPEC.origin).parent / "weights" / "v0.1" / "vgg.pth")


def test_the_heads_of_the_wheel_are_read_and_take_their_places():
    given = {name: np.asarray(tensor) for name, tensor in heads().items()}
    assert {name: x.shape for name, x in given.items()} == {
        f"lin{level}.model.1.weight": (1, width, 1, 1) for level, width in enumerate(WIDTHS)
    }
    params = weights.from_torch(models.config("lpips"), lpips.from_published(published()[0], given))
    for level, width in enumerate(WIDTHS):
        head = given[f"lin{level}.model.1.weight"].reshape(width)
        np.testing.assert_array_equal(params[f"head{level}"], head)
        assert (head >= 0).all() and 0.001 < head.mean() < 1  # as they were trained to be


def test_pytorch_reads_the_same_numbers_from_the_wheel():
    torch = pytest.importorskip("torch")
    want = torch.load(Path(SPEC.origin).parent / "weights" / "v0.1" / "vgg.pth", map_location="cpu", weights_only=True)
    assert want.keys() == heads().keys()
    for name, value in want.items():
        np.testing.assert_array_equal(np.asarray(heads()[name]), value.numpy())
