"""The HunyuanVideo autoencoder against arrays of the original: every size, tiling, posterior samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from osjax import models, weights
from osjax.errors import UserError
from osjax.models import tiling
from osjax.models.hunyuan import blocks
from tests import golden

BLOCKS = {"conv_in": ("conv_in",), "mid": ("middle",), "mid_attention": ("middle", "attention")}


def channels_last(x_BCTHW):
    return np.moveaxis(x_BCTHW, 1, -1)


def loaded(name, **changes):
    """(module, params, arrays, settings) of a golden."""
    arrays, settings = golden.read(name)
    cfg = models.config("hunyuan", **{**settings["config"], **changes})
    tensors = {n: golden.generate(n, s) for n, s in weights.torch_shapes(cfg).items()}
    return models.build(cfg), weights.from_torch(cfg, tensors), arrays, settings


@pytest.fixture(scope="module")
def frames():
    return loaded("hunyuan_frames")


def close(got, want_BCTHW, settings):
    return golden.relative_error(got, channels_last(want_BCTHW)) < settings["tolerance_relative"]


@pytest.mark.parametrize("case", ["f1", "f5", "f9"])
def test_moments_latents_samples_and_pixels_match_the_original(frames, case):
    module, params, arrays, settings = frames
    run = jax.jit(module.apply, static_argnames="method")
    video = channels_last(arrays[f"{case}.in.video"])
    moments = run({"params": params}, video, method="moments")
    assert close(moments, arrays[f"{case}.moments"], settings)
    latent = run({"params": params}, video, method="encode")
    assert close(latent, arrays[f"{case}.latent_mode"], settings)
    sampled = run({"params": params}, video, channels_last(arrays[f"{case}.in.noise"]), method="encode")
    assert close(sampled, arrays[f"{case}.latent_sampled"], settings)
    assert not close(latent, arrays[f"{case}.latent_sampled"], settings)
    decoded = run({"params": params}, latent, method="decode")
    assert close(decoded, arrays[f"{case}.reconstruction"], settings)
    assert decoded.shape[1:4] == module.stride.pixel_shape(*latent.shape[1:4])


@pytest.mark.parametrize("step", [1, 2**14])
def test_a_few_frames_at_a_time_give_what_the_whole_video_gives(frames, monkeypatch, step):
    """step: one frame at a time, and as many as there are at the lower resolutions."""
    module, params, arrays, settings = frames
    video, latent = (channels_last(arrays[f"f9.{name}"]) for name in ("in.video", "latent_mode"))

    def both():
        run = jax.jit(module.apply, static_argnames="method")  # anew: sizes are read when it is traced
        return run({"params": params}, video, method="encode"), run({"params": params}, latent, method="decode")

    whole = both()
    monkeypatch.setattr(blocks, "WHOLE", 0)
    monkeypatch.setattr(blocks, "STEP", step)
    jax.clear_caches()
    for got, want, name in zip(both(), whole, ("latent_mode", "reconstruction"), strict=True):
        assert close(got, arrays[f"f9.{name}"], settings) and not np.array_equal(got, want)
        np.testing.assert_allclose(got, want, atol=1e-4)


def test_activations_behind_every_block_match_the_original(frames):
    module, params, arrays, settings = frames
    watched = jax.jit(
        lambda params, x: module.apply({"params": params}, x, capture_intermediates=True, mutable=["intermediates"])
    )
    found = watched(params, channels_last(arrays["f5.in.video"]))[1]["intermediates"]
    names = [n for n in arrays if n.startswith("f5.act.")]
    assert len(names) >= 12
    for name in names:
        side, block = name.split(".")[2:]
        value = found[{"enc": "encoder", "dec": "decoder"}[side]]
        for part in BLOCKS.get(block, (f"level{block[-1]}",)):
            value = value[part]
        value = value["__call__"][0]
        if arrays[name].ndim == 3:  # tokens rather than pixels
            value = value.reshape(*arrays[name].shape)
            assert golden.relative_error(value, arrays[name]) < settings["tolerance_relative"]
            continue
        strides = np.array(settings["subsampled"].get(name, {}).get("strides", [1] * 5))[[0, 2, 3, 4, 1]]
        assert close(value[tuple(slice(None, None, s) for s in strides)], arrays[name], settings), name


def test_eightfold_time_and_a_shift_match_the_original():
    module, params, arrays, settings = loaded("hunyuan_time8_shift")
    video = channels_last(arrays["in.video"])
    run = jax.jit(module.apply, static_argnames="method")
    latent = run({"params": params}, video, method="encode")
    assert close(latent, arrays["latent_mode"], settings)
    assert close(run({"params": params}, latent, method="decode"), arrays["reconstruction"], settings)
    other = models.build(models.config("hunyuan", **{**settings["config"], "shift_factor": 0.0}))
    shifted = jax.jit(lambda x: other.apply({"params": params}, x, method="encode"))(video)
    assert not close(shifted, arrays["latent_mode"], settings)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("hunyuan_tiled_spatial", marks=pytest.mark.long),
        pytest.param("hunyuan_tiled_temporal", marks=pytest.mark.long),
        "hunyuan_tiled_both",
    ],
)
def test_tiles_match_the_original_and_differ_from_the_whole(name):
    module, params, arrays, settings = loaded(name)
    video = channels_last(arrays["in.video"])
    assert close(tiling.encode(module, params, video), arrays["latent_mode"], settings)
    if name == "hunyuan_tiled_both":  # once is enough to see that tiles change the numbers
        assert close(tiling.encode(module, params, video, method="moments"), arrays["moments"], settings)
        whole = jax.jit(module.apply, static_argnames="method")({"params": params}, video, method="encode")
        assert not close(whole, arrays["latent_mode"], settings)
    decoded = tiling.decode(module, params, channels_last(arrays["in.latent"]))
    assert close(decoded, arrays["decoded"], settings)


@pytest.mark.long
def test_the_full_width_model_matches_the_original():
    module, params, arrays, settings = loaded("hunyuan_full_width")
    for case in ("f1", "f5"):
        run = jax.jit(module.apply, static_argnames="method")
        latent = run({"params": params}, channels_last(arrays[f"{case}.in.video"]), method="encode")
        assert close(latent, arrays[f"{case}.latent_mode"], settings)
        decoded = run({"params": params}, latent, method="decode")
        assert close(decoded, arrays[f"{case}.reconstruction"], settings)


def test_full_size_names_and_shapes_are_those_of_the_original():
    manifest = golden.read_json("full_hunyuan_vae")
    assert weights.torch_shapes(models.config("hunyuan")) == {n: tuple(s) for n, s in manifest["tensors"].items()}
    leaves = jax.tree.leaves(models.abstract_params(models.config("hunyuan")))
    assert sum(leaf.size for leaf in leaves) == manifest["parameters"]


def test_export_gives_back_the_bytes_of_the_file(frames):
    module, params, *_ = frames
    back = weights.to_torch(module.cfg, params)
    assert back.keys() == golden.read_json("manifest_hunyuan_tiny")["state_dict"].keys()
    assert all(tensor.tobytes() == golden.generate(n, tensor.shape).tobytes() for n, tensor in back.items())


def test_rematerialised_gradients_equal_plain_ones():
    small = {"layers_per_block": 1, "block_out_channels": (32, 64), "spatial_compression_ratio": 2}
    module, params, arrays, _ = loaded("hunyuan_frames", **small)
    video = channels_last(arrays["f5.in.video"])[:, :, :16, :16]

    def gradient(m):
        return jax.jit(jax.grad(lambda p: jnp.square(m.apply({"params": p}, video, method="encode")).mean()))(params)

    plain, again = gradient(module), gradient(module.clone(remat=True))
    largest = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(plain))
    off = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), plain, again)
    assert max(jax.tree.leaves(off)) < 1e-4 * largest
    assert all(float(jnp.abs(g).max()) > 0 for g in jax.tree.leaves(plain["encoder"]["conv_in"]))
    assert largest > 1e-3


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"dropout": 0.1}, "dropout=0.1 is not supported"),
        ({"time_compression_ratio": 2}, "use 4 or 8"),
        ({"spatial_compression_ratio": 16}, "power of two below 2"),
        ({"block_out_channels": (30, 60, 60, 60)}, "does not divide into 32 norm groups"),
    ],
)
def test_settings_that_do_not_work_are_refused(fields, words):
    with pytest.raises(UserError, match=words):
        models.config("hunyuan", **fields)


def test_frames_that_do_not_fit_are_refused_with_the_nearest(frames):
    module, params, *_ = frames
    with pytest.raises(UserError, match="the nearest valid number is 5"):
        module.apply({"params": params}, jnp.zeros((1, 6, 16, 16, 3)), method="encode")
