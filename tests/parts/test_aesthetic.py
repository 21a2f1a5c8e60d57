"""The metric `aesthetic` of `osjax data score`, from files in the published layouts, written here."""

import json
import pickle

import numpy as np
import pytest
from safetensors.numpy import save_file

from osjax import models, weights
from osjax.__main__ import main
from osjax.curation import tables
from osjax.parts import aesthetic
from tests import golden
from tests.curation.conftest import picture, write
from tests.models.test_clip_vision import TINY, generated
from tests.weights.torch_files import write_zip


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """(folder of a CLIP, file of a predictor, (module, params) of both)."""
    folder = tmp_path_factory.mktemp("aesthetic")
    vision = models.config("clip_vision", **TINY)
    stated = {k: v for k, v in TINY.items() if k != "projection_dim"}
    clip = folder / "clip"
    clip.mkdir()
    described = {"model_type": "clip", "projection_dim": 12, "vision_config": stated, "text_config": {"hidden_size": 8}}
    (clip / "config.json").write_text(json.dumps(described))
    others = {"logit_scale": np.ones(1, np.float32), "text_model.final_layer_norm.bias": np.ones(8, np.float32)}
    save_file({**generated(vision), **others}, clip / "model.safetensors")
    head = models.config("aesthetic", input_size=12)
    write_zip(folder / "predictor.pth", generated(head))
    made = [(models.build(cfg), weights.from_torch(cfg, generated(cfg))) for cfg in (vision, head)]
    return clip, folder / "predictor.pth", made


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A folder of two clips."""
    folder = tmp_path_factory.mktemp("clips")
    for seed in (0, 5):
        write(folder / f"{seed}.mp4", picture(24, 96, 128, seed, speed=1.0), crf=12)
    return folder


def score(clips, out, *flags):
    return main(["data", "score", str(clips), str(out), *(f"--config.{flag}" for flag in flags)])


def test_clips_get_the_mean_score_of_three_frames(files, clips, tmp_path):
    clip, predictor, ((vision, vision_params), (head, head_params)) = files
    flags = ["score.metrics=('aesthetic',)", f"aesthetic.clip={clip}", f"aesthetic.predictor={predictor}"]
    assert score(clips, tmp_path / "out.parquet", *flags) == 0
    rows = list(tables.rows(tmp_path / "out.parquet", clips))
    assert len(rows) == 2 and rows[0]["aesthetic"] != rows[1]["aesthetic"] and "shown" not in rows[0]
    beauty = aesthetic.Beauty(str(clip), str(predictor))
    frames = np.random.RandomState(0).randint(0, 256, (3, 20, 30, 3), np.uint8)
    pixels = np.stack([aesthetic.square(frame, 8) for frame in frames]) / np.float32(127.5) - 1
    want = head.apply({"params": head_params}, vision.apply({"params": vision_params}, pixels))
    got = pickle.loads(pickle.dumps(beauty))(frames)
    assert golden.relative_error(got, want) < 1e-5 and np.std(want) > 1e-4


def test_a_square_is_the_middle_of_a_frame():
    wide = np.zeros((30, 90, 3), np.uint8)
    wide[:, 30:60] = 200
    assert aesthetic.square(wide, 10).shape == (10, 10, 3) and aesthetic.square(wide, 10)[:, 2:-2].min() > 190
    high = wide.transpose(1, 0, 2)
    np.testing.assert_array_equal(aesthetic.square(high, 10), aesthetic.square(wide, 10).transpose(1, 0, 2))


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"clip": ""}, "metric aesthetic needs local weights: give --config.aesthetic.clip"),
        ({"clip": "/nowhere"}, "/nowhere/config.json cannot be read"),
        ({"predictor": "/nowhere.pth"}, "/nowhere.pth does not exist"),
        ({"predictor": "CLIP/model.safetensors"}, "missing layers.0.weight"),
    ],
)
def test_what_is_missing_or_of_another_model_is_one_line(files, clips, wrong, words, tmp_path, capsys):
    given = {"clip": str(files[0]), "predictor": str(files[1]), **wrong}
    given = {key: value.replace("CLIP", str(files[0])) for key, value in given.items()}
    flags = ["score.metrics=('motion','aesthetic')", *(f"aesthetic.{key}={value}" for key, value in given.items())]
    assert score(clips, tmp_path / "out.parquet", *flags) in (1, 2)
    error = capsys.readouterr().err
    assert words in error and len(error.splitlines()) == 1 and not list(tmp_path.iterdir())
