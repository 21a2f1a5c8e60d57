"""`osjax encode` and training on what it made: the very losses of training on videos, however it was made."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

from osjax import models, weights
from osjax.__main__ import main
from osjax.configs import smoke
from osjax.data import dataset, fingerprints
from osjax.parts.groups import to_dataclass
from osjax.stages import features
from osjax.training import metrics
from tests import golden

READ = ["--config.data.cached=True", "--config.data.cached_text=True"]

CONFIG = """
from ml_collections import ConfigDict
from osjax.configs import base, smoke
from tests.cli.test_encode import tiny_autoencoder

def get_config():
    cfg = base.single("tiny", smoke.diffusion("64px", steps=4))
    cfg.model.update(hidden_size=16, num_heads=1, axes_dim=(4, 6, 6), depth_single_blocks=1)
    cfg.mesh.data = 1
    cfg.mesh.fsdp = 8
    cfg.modes = ConfigDict({"t2v": 1.0, "i2v_head": 3.0, "i2v_loop": 1.0})
    cfg.autoencoder.stage = None
    cfg.autoencoder.weights = WEIGHTS
    cfg.autoencoder.family = "dcae"
    cfg.autoencoder.config = tiny_autoencoder()
    cfg.checkpoint.every = 0
    cfg.data.random_start = False
    cfg.data.cached = False
    cfg.clips.train, cfg.clips.size = 28, 64
    cfg.compilation_cache = CACHE
    return cfg
"""


def tiny_autoencoder():
    """That of configs/smoke.py without attention, which is slow to compile."""
    cfg = smoke.autoencoder_model()
    cfg.encoder.block_type = cfg.decoder.block_type = ("ResBlock",) * 5
    return cfg


def write_weights(path, scale=1.0):
    cfg = to_dataclass(models.config_class("dcae"), tiny_autoencoder())
    tensors = {name: scale * golden.generate(name, shape) for name, shape in weights.torch_shapes(cfg).items()}
    save_file({name: x.astype(np.float32) for name, x in tensors.items()}, path)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """The flag that gives the config of all these runs."""
    folder = tmp_path_factory.mktemp("config")
    write_weights(folder / "dcae.safetensors")
    names = {"WEIGHTS": folder / "dcae.safetensors", "CACHE": folder / "cache"}
    (folder / "tiny.py").write_text("\n".join(f"{k} = {str(v)!r}" for k, v in names.items()) + CONFIG)
    return f"--config={folder / 'tiny.py'}"


@pytest.fixture(scope="module")
def raw(tmp_path_factory, config):
    """Folder of a run that trained on videos."""
    workdir = tmp_path_factory.mktemp("raw")
    assert main(["train", config, f"--workdir={workdir}"]) == 0
    return workdir


def copy(raw, to):
    """A folder with the run's clips alone."""
    shutil.copytree(raw / "data", to / "data")
    return to


def losses(workdir):
    return [line["loss"] for line in metrics.read(workdir / "metrics.jsonl")]


@pytest.fixture(scope="module")
def encoded(raw, config, tmp_path_factory):
    """Folder of features that the command made, text and all."""
    folder = tmp_path_factory.mktemp("features")
    flags = [f"--config.data.features={folder}", "--config.data.cached_text=True"]
    assert main(["encode", config, f"--workdir={raw}", *flags]) == 0
    return folder


def test_losses_on_encoded_clips_are_those_on_videos(raw, encoded, config, tmp_path, capsys):
    workdir = copy(raw, tmp_path / "cached")
    switch = [*READ, f"--config.data.features={encoded}"]
    assert main(["train", config, f"--workdir={workdir}", *switch]) == 0
    want = losses(raw)
    np.testing.assert_allclose(losses(workdir), want, rtol=1e-6)
    assert len(want) == 4 and np.abs(np.diff(want)).min() > 1e-4  # other batches would show


def test_a_cached_run_makes_what_is_missing_and_has_the_same_losses(raw, config, tmp_path):
    workdir = copy(raw, tmp_path / "own")
    assert main(["train", config, f"--workdir={workdir}", "--config.data.cached=True"]) == 0
    np.testing.assert_allclose(losses(workdir), losses(raw), rtol=1e-6)
    assert {path.name[:7] for path in (workdir / "latents").iterdir()} == {"8x64x64"}


def test_encoded_clips_are_a_data_set_in_array_records_with_text_and_condition_frames(encoded):
    (folder,) = encoded.iterdir()
    about = json.loads((folder / features.ABOUT).read_text())
    assert about["features"] == ["head_image", "latents", "tail_image"] and about["states"]["dtype"] == "float32"
    records = dataset.open_source(folder)
    assert len(records) == 28 and fingerprints.check(folder) == 1 + 2  # shards, and two files that describe them
    shapes = {name: records[3][name].shape for name in about["features"]}
    assert shapes == {"latents": (2, 4, 4, 16), "head_image": (1, 4, 4, 16), "tail_image": (1, 4, 4, 16)}
    assert records[3]["index"] == 3 and records[3]["vec"].shape == (32,)


@pytest.mark.parametrize(
    "flags, says",
    [
        (["--config.data.fps_max=30.0"], "those in 8x64x64 are of another fps_max"),
        (["--config.text.max_length=11"], "another text"),
        (["--config.data.buckets=(('48px',8,1.0,8),)"], "holds no features of these clips in 8x48x48"),
    ],
)
def test_features_of_something_else_are_refused_by_name(raw, encoded, config, tmp_path, capsys, flags, says):
    workdir = copy(raw, tmp_path / "other")
    switch = [*READ, f"--config.data.features={encoded}"]
    assert main(["train", config, f"--workdir={workdir}", *switch, *flags]) == 2
    assert says in capsys.readouterr().err


def test_another_autoencoder_s_latents_are_refused(raw, encoded, config, tmp_path, capsys):
    write_weights(tmp_path / "other.safetensors", 1.01)
    flags = [
        *READ,
        f"--config.data.features={encoded}",
        f"--config.autoencoder.weights={tmp_path / 'other.safetensors'}",
    ]
    assert main(["train", config, f"--workdir={copy(raw, tmp_path / 'run')}", *flags]) == 2
    assert "those in 8x64x64 are of another autoencoder;" in capsys.readouterr().err


def test_unknown_stages_are_named(config, tmp_path, capsys):
    assert main(["encode", config, f"--workdir={tmp_path}", "--stage=other"]) == 2
    assert "no diffusion stage 'other': use tiny" in capsys.readouterr().err
