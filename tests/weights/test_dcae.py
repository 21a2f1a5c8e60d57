"""The DC-AE's table of weights against the original's names and shapes."""

import numpy as np
import pytest

from osjax import models, weights
from osjax.errors import UserError
from tests import golden

IMAGE = {
    "latent_channels": 8,
    "time_compression_ratio": 1,
    "spatial_compression_ratio": 4,
    "encoder": {
        "width_list": [0, 16, 32],
        "depth_list": [0, 1, 1],
        "block_type": ["ResBlock", "ResBlock", "EViT_GLU"],
        "downsample_block_type": "ConvPixelUnshuffle",
        "temporal_downsample": [],
        "is_video": False,
        "out_norm": "rms2d",
        "out_act": "relu",
        "out_shortcut": None,
    },
    "decoder": {
        "width_list": [0, 16, 32],
        "depth_list": [0, 1, 1],
        "block_type": ["ResBlock", "ResBlock", "EViT_GLU"],
        "upsample_block_type": "ConvPixelShuffle",
        "temporal_upsample": [],
        "is_video": False,
    },
}


@pytest.mark.parametrize("manifest", ["manifest_dcae_tiny", "manifest_dcae_tiny128", "manifest_dcae_full"])
def test_names_and_shapes_equal_the_manifest(manifest):
    described = golden.read_json(manifest)
    want = {name: tuple(entry["shape"]) for name, entry in described["state_dict"].items()}
    got = weights.torch_shapes(models.config("dcae", **described["config"]))
    assert got == want
    assert got != weights.torch_shapes(models.config("dcae", latent_channels=64))


def test_default_config_is_the_released_model_with_all_its_parameters():
    released = golden.read_json("full_dc_ae_f32t4c128")
    shapes = weights.torch_shapes(models.config("dcae"))
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == released["parameters"] == 459462147
    assert len(shapes) == released["tensor_count"]
    assert models.config("dcae") == models.config("dcae", **released["config"])


@pytest.mark.parametrize("fields", [golden.read_json("manifest_dcae_tiny")["config"], IMAGE], ids=["video", "image"])
def test_tensors_survive_the_way_in_and_out_byte_for_byte(fields):
    cfg = models.config("dcae", **fields)
    tensors = {name: golden.generate(name, shape) for name, shape in weights.torch_shapes(cfg).items()}
    back = weights.to_torch(cfg, weights.from_torch(cfg, tensors))
    assert set(back) == set(tensors)
    for name, tensor in tensors.items():
        assert back[name].tobytes() == tensor.tobytes(), name


def test_an_image_model_has_flat_kernels_and_the_names_of_its_resampling_blocks():
    shapes = weights.torch_shapes(models.config("dcae", **IMAGE))
    assert shapes["encoder.project_in.conv.conv.weight"] == (4, 3, 3, 3)
    assert shapes["encoder.stages.1.op_list.1.main.conv.conv.weight"] == (8, 16, 3, 3)
    assert shapes["encoder.project_out.op_list.2.conv.weight"] == (8, 32, 3, 3)
    assert shapes["decoder.project_out.op_list.2.conv.conv.weight"] == (12, 16, 3, 3)


def test_missing_and_unexpected_tensors_are_named():
    cfg = models.config("dcae", **IMAGE)
    tensors = {name: np.zeros(shape, np.float32) for name, shape in weights.torch_shapes(cfg).items()}
    del tensors["decoder.project_in.main.conv.bias"]
    tensors["loss.logvar"] = np.zeros(3, np.float32)
    with pytest.raises(UserError, match=r"missing decoder.project_in.main.conv.bias .*unexpected loss.logvar"):
        weights.from_torch(cfg, tensors)
