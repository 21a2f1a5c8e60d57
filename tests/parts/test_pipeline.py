"""Pipelines with models loaded from the workdir of a run."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import osjax
from osjax.errors import UserError
from osjax.parallel import mesh
from osjax.sampling import workdir
from osjax.sampling.pipeline import Pipeline
from tests.golden import relative_error
from tests.sampling import files, tiny, trained


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return trained.write(tmp_path_factory.mktemp("workdir"))


def test_a_workdir_samples_with_its_averaged_weights_scale_and_settings(folder):
    got = osjax.Pipeline.from_checkpoint(folder)(["a red circle"], seed=3)
    scaled = dataclasses.replace(tiny.autoencoder(), scale=trained.SCALE)
    by_hand = Pipeline(*tiny.parts()[:2], scaled, tiny.parts()[2], settings=tiny.SETTINGS)(
        ["a red circle"], seed=3, fps=8
    )
    np.testing.assert_array_equal(got.latents_BTHWC, by_hand.latents_BTHWC)
    np.testing.assert_array_equal(got.videos_BTHWC, by_hand.videos_BTHWC)
    assert got.settings == by_hand.settings
    unscaled = tiny.pipeline()(["a red circle"], seed=3)
    assert np.abs(unscaled.videos_BTHWC.astype(int) - got.videos_BTHWC).max() > 5


def test_a_workdir_can_be_moved_split_over_a_mesh_and_asked_for_other_settings(folder, tmp_path):
    moved = tmp_path / "moved"
    folder.rename(moved)
    try:
        want = osjax.Pipeline.from_checkpoint(moved, settings={"steps": 2})(["a"])
        assert want.settings["steps"] == 2 and want.settings["frames"] == 8
        spread = osjax.Pipeline.from_checkpoint(moved, settings={"steps": 2}, mesh=mesh.make(data=1, fsdp=4, tensor=2))
        got = spread(["a"])
    finally:
        moved.rename(folder)
    assert relative_error(got.latents_BTHWC, want.latents_BTHWC) < 1e-4


def test_what_is_no_finished_run_is_said_in_one_line(folder, tmp_path):
    with pytest.raises(UserError, match="holds no model.json"):
        osjax.Pipeline.from_checkpoint(tmp_path)
    with pytest.raises(UserError, match="unknown config key sample.step; did you mean steps"):
        osjax.Pipeline.from_checkpoint(folder, settings={"step": 2})
    with pytest.raises(TypeError, match="'dtpye'"):
        osjax.Pipeline.from_checkpoint(folder, dtpye="bfloat16")
    good = json.loads((folder / workdir.FILE).read_text())
    for says, change in (
        ("lead out of the workdir", {"denoiser": {**good["denoiser"], "checkpoints": "../elsewhere"}}),
        ("version 2", {"version": 2}),
        ("cannot be read", {"settings": {"step": 3}}),
        ("cannot be read", {"text": 7}),
        ("unknown model family", {"denoiser": {**good["denoiser"], "family": "os.system"}}),
    ):
        (tmp_path / workdir.FILE).write_text(json.dumps({**good, **change}))
        with pytest.raises(UserError, match=says):
            osjax.Pipeline.from_checkpoint(tmp_path)
    (tmp_path / workdir.FILE).write_text(json.dumps(good))
    with pytest.raises(UserError, match="did not finish"):
        osjax.Pipeline.from_checkpoint(tmp_path)(["a"])


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return files.write(tmp_path_factory.mktemp("files"))


def test_a_config_samples_from_files_with_the_original_names(config):
    got = osjax.Pipeline.from_config(osjax.load_config(config, {"attention": "dense"}))(["a red circle"], seed=3)
    want = tiny.pipeline()(["a red circle"], seed=3)
    np.testing.assert_array_equal(got.latents_BTHWC, want.latents_BTHWC)
    np.testing.assert_array_equal(got.videos_BTHWC, want.videos_BTHWC)
    auto = osjax.Pipeline.from_config(osjax.load_config(config))(["a red circle"], seed=3)
    assert 0 < relative_error(auto.latents_BTHWC, want.latents_BTHWC) < 1e-5  # blockwise, where this runs
    low = osjax.Pipeline.from_config(osjax.load_config(config, {"dtype": "bfloat16"}))
    assert 1e-4 < relative_error(low(["a red circle"], seed=3).latents_BTHWC, want.latents_BTHWC) < 0.1
    with low._params.on_device() as params:
        assert {str(x.dtype) for x in jax.tree.leaves(params)} == {"bfloat16"}


def test_a_config_without_weights_or_with_a_broken_file_says_so(config, tmp_path):
    (tmp_path / "broken.safetensors").write_bytes(b"\xff" * 100)
    for says, changes in (
        ("nothing to sample from", {"model.weights": ""}),
        ("model.weights is 'no.safetensors', which does not exist", {"model.weights": "no.safetensors"}),
        (
            "broken.safetensors is no safetensors file, or is cut off",
            {"model.weights": str(tmp_path / "broken.safetensors")},
        ),
        ("weights do not fit the model", {"model.layout": "flux"}),
        ("model.layout is 'split'", {"model.layout": "split"}),
        ("autoencoder.family is 'vae': use one of dcae", {"autoencoder.family": "vae"}),
    ):
        with pytest.raises(UserError, match=says):
            osjax.Pipeline.from_config(osjax.load_config(config, changes))(["a"])
