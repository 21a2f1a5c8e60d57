"""Weights of the discriminator by the original's names."""

import chex
import flax.linen as nn
import numpy as np
import pytest

from osjax import models, weights
from osjax.errors import UserError
from osjax.parallel import rules, sharding
from osjax.weights import load
from tests import golden
from tests.models import discriminator_weights
from tests.training import tiny


@pytest.mark.parametrize("manifest", ["manifest_discriminator_tiny", "manifest_discriminator_step"])
def test_names_and_shapes_of_small_models_are_the_originals(manifest):
    known = golden.read_json(manifest)
    got = weights.torch_shapes(models.config("discriminator", **known["config"]))
    assert got == {name: tuple(entry["shape"]) for name, entry in known["state_dict"].items()}


def test_full_size_names_and_shapes_are_the_originals_and_the_default():
    known = golden.read_json("full_discriminator_3d")
    cfg = models.config("discriminator")
    assert cfg == models.config("discriminator", **known["config"])
    shapes = weights.torch_shapes(cfg)
    assert shapes == {name: tuple(shape) for name, shape in known["tensors"].items()}
    counted = sum(int(np.prod(shape)) for name, shape in shapes.items() if name not in known["buffers"])
    assert counted == known["parameters"]


def test_export_gives_back_the_bytes_of_the_file():
    given = discriminator_weights.tensors("manifest_discriminator_tiny")
    module, params = discriminator_weights.load("manifest_discriminator_tiny")
    back = weights.to_torch(module.cfg, params)
    assert back.keys() == given.keys()
    assert all(back[name].tobytes() == tensor.tobytes() for name, tensor in given.items())


def test_a_file_without_running_statistics_is_refused_by_name():
    given = discriminator_weights.tensors("manifest_discriminator_step")
    del given["main.7.running_var"]
    with pytest.raises(UserError, match=r"missing main.7.running_var \(32,\)"):
        weights.from_torch(discriminator_weights.load("manifest_discriminator_step")[0].cfg, given)


def test_tensors_go_straight_to_the_devices_of_a_mesh_counters_too():
    given = discriminator_weights.tensors("manifest_discriminator_step")
    module, params = discriminator_weights.load("manifest_discriminator_step")
    shardings = sharding.of_boxed(models.abstract_params(module.cfg), tiny.mesh_of(2, 4, 1, 1), rules.AUTOENCODER)
    placed = load.place(weights.torch_leaves(module.cfg, given), shardings)
    chex.assert_trees_all_equal(nn.unbox(placed), params)
    assert not placed["conv1"]["kernel"].sharding.is_fully_replicated
