"""A Video DC-AE that starts from an image model's weights does what the image model did."""

from dataclasses import asdict

import jax
import numpy as np
import pytest

from osjax import models, weights
from osjax.errors import UserError
from osjax.weights import inflate
from osjax.weights.leaves import of_params
from tests import golden
from tests.models.dcae_tiny import run


def video_config(time: int, blocks=("ResBlock", "ResBlock"), chunk_frames=0):
    side = {"width_list": (8, 32), "depth_list": (1, 1), "block_type": blocks}
    return models.config(
        "dcae",
        latent_channels=4,
        time_compression_ratio=time,
        spatial_compression_ratio=2,
        encoder={**side, "temporal_downsample": (time == 2, False)},
        decoder={**side, "temporal_upsample": (time == 2, False)},
        chunk_frames=chunk_frames,
    )


def params_of(leaves):
    return leaves.tree()


def pair(cfg):
    """((image model, its params), (video model, the inflated params)); tensors by the image model's torch names."""
    flat = inflate.image_config(cfg)
    tensors = {name: golden.generate(name, shape) for name, shape in weights.torch_shapes(flat).items()}
    source = weights.torch_leaves(flat, tensors)
    return (models.build(flat), params_of(source)), (models.build(cfg), params_of(inflate.inflated(cfg, source)))


CLIP = np.random.default_rng(0).uniform(-1, 1, (1, 4, 4, 4, 3)).astype(np.float32)


def test_a_clip_comes_out_frame_by_frame_as_from_the_image_model():
    image, (model, params) = pair(video_config(time=1))
    for method, x in (("encode", CLIP), ("decode", np.random.default_rng(1).standard_normal((1, 4, 2, 2, 4)))):
        want = run(*image, x, method=method)  # an image model takes every frame by itself
        assert golden.relative_error(run(model, params, x, method=method), want) < 1e-6
    moved = jax.tree.map(lambda x: np.roll(x, 1, 0) if x.ndim == 5 and x.shape[0] == 3 else x, params)
    assert golden.relative_error(run(model, moved, x, method="decode"), want) > 0.1


@pytest.mark.parametrize("chunk_frames", [0, 4])
def test_images_come_out_as_before_with_attention_resampling_in_time_and_chunks(chunk_frames):
    image, (model, params) = pair(video_config(2, ("ResBlock", "EViTS5_GLU"), chunk_frames))
    want = run(*image, CLIP, method="__call__")
    for frame in range(CLIP.shape[1]):
        got = run(model, params, CLIP[:, frame : frame + 1], method="__call__")
        assert golden.relative_error(got, want[:, frame : frame + 1]) < 1e-5
    assert golden.relative_error(want[:, :1], want[:, 1:2]) > 1e-2


def test_windows_of_a_leaf_are_windows_of_the_whole():
    cfg = video_config(time=1)
    _, (_, params) = pair(cfg)
    flat = inflate.image_config(cfg)
    source = weights.torch_leaves(flat, {n: golden.generate(n, s) for n, s in weights.torch_shapes(flat).items()})
    leaves, path = inflate.inflated(cfg, source), ("encoder", "project_in", "kernel")
    kernel = params["encoder"]["project_in"]["kernel"]
    assert np.abs(kernel[1]).max() > 0 and not kernel[[0, 2]].any()
    for window in (slice(0, 1), slice(1, 3), slice(1, 2)):
        got = leaves.read(path, (window, slice(0, 2), slice(1, 3), slice(0, 3), slice(4, 8)))
        np.testing.assert_array_equal(got, kernel[window, :2, 1:3, :, 4:8])


def test_weights_that_do_not_fit_are_listed():
    cfg = video_config(time=1)
    other = models.config("dcae", **{**asdict(inflate.image_config(cfg)), "latent_channels": 8, **UNSET})
    params = weights.from_torch(other, {n: golden.generate(n, s) for n, s in weights.torch_shapes(other).items()})
    with pytest.raises(
        UserError, match=r"project_in/kernel is \(1, 3, 3, 8, 32\) there and \(3, 3, 3, 4, 32\) in the model"
    ):
        inflate.inflated(cfg, of_params(params))
    with pytest.raises(UserError, match="start.inflate is for Video DC-AEs"):
        inflate.image_config(models.config("hunyuan"))


UNSET = {
    side: {
        **asdict(inflate.image_config(video_config(time=1)))[side],
        "latent_channels": None,
    }
    for side in ("encoder", "decoder")
}
