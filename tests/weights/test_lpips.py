"""Weights of LPIPS by the original's names, and as its two files are published."""

import numpy as np
import pytest

from osjax import models, weights
from osjax.errors import UserError
from osjax.weights import lpips
from tests import golden
from tests.models import lpips_weights

# Numbers of the convolutions in torchvision's vgg16, level by level.
PLACES = {1: (0, 2), 2: (5, 7), 3: (10, 12, 14), 4: (17, 19, 21), 5: (24, 26, 28)}


def published():
    """(VGG16 with its classifier, heads), the same numbers under the published names."""
    given = lpips_weights.tensors()
    vgg16 = {
        f"features.{place}.{part}": given[f"net.slice{level}.{place}.{part}"]
        for level, places in PLACES.items()
        for place in places
        for part in ("weight", "bias")
    }
    vgg16["classifier.6.bias"] = np.zeros(1000, np.float32)
    return vgg16, {name: t for name, t in given.items() if name.startswith("lin")}


def test_names_and_shapes_are_those_of_the_original():
    known = golden.read_json("manifest_lpips")["state_dict"]
    assert weights.torch_shapes(models.config("lpips")) == {n: tuple(e["shape"]) for n, e in known.items()}


def test_export_gives_back_the_bytes_of_the_file():
    cfg, given = models.config("lpips"), lpips_weights.tensors()
    back = weights.to_torch(cfg, lpips_weights.load()[1])
    assert back.keys() == given.keys()
    assert all(back[name].tobytes() == tensor.tobytes() for name, tensor in given.items())


def test_the_two_published_files_are_the_original_state_dict():
    joined, given = lpips.from_published(*published()), lpips_weights.tensors()
    assert joined.keys() == given.keys()
    assert all(np.array_equal(joined[name], tensor) for name, tensor in given.items())
    assert not np.array_equal(joined["net.slice3.12.weight"], joined["net.slice3.14.weight"])


def test_files_of_another_network_are_refused_by_name():
    vgg16, heads = published()
    vgg16["features.30.weight"] = vgg16.pop("features.28.weight")
    with pytest.raises(UserError, match=r"missing net.slice5.28.weight .*unexpected features.30.weight"):
        weights.from_torch(models.config("lpips"), lpips.from_published(vgg16, heads))
