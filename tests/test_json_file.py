"""JSON files: an object or one line, whatever is in them and whoever reads them."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from etils import epath

from osjax import integrity, json_file
from osjax.bench.demo import Stopwatch
from osjax.curation import engine
from osjax.errors import UserError
from osjax.models.autoencoder import LatentScale
from osjax.parts import latent_scale, model_folder
from osjax.sampling import workdir
from osjax.stages import features, held_out
from osjax.weights import io

DAMAGES = {
    "empty": b"",
    "cut": b'{"made_from": {"clips"',
    "zeros": b"\0" * 64,
    "list": b"[1, 2]",
    "number": b"1e999",
    "deep": b'{"a":' * 100_000,
    "latin": '{"ü": 1}'.encode("latin-1"),
    "other": b'{"something": "else"}',
    "values": json.dumps(dict.fromkeys(("scale", "shift", "weight_map", "states", "shape", "kept"), "x")).encode(),
}


def scale(folder):
    return latent_scale.read(folder)


def no_answer(read):
    """A reader to which a damaged file is a missing one."""

    def checked(folder):
        assert read(folder) in (None, {}, [])
        raise UserError("as if it were missing")

    return checked


READERS = {
    "latent_scale.json": scale,
    "model.json": workdir.read,
    "config.json": lambda folder: model_folder.config("t5", folder, "float32"),
    "model.safetensors.index.json": io.open_tensors,
    "about.json": no_answer(features._about),
    "done.json": no_answer(lambda folder: engine._done(folder, folder / "out.csv", folder / "dropped.csv")),
    "shards.json": no_answer(lambda folder: engine._listed(folder / "shards.json")),
    "seconds.json": no_answer(lambda folder: Stopwatch(folder / "seconds.json", 0.0).seconds),
    "held_out.json": no_answer(lambda folder: held_out.report("a", folder, None)),
    "seal.json": lambda folder: integrity.read_seal(epath.Path(folder) / "seal.json"),
}


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_of_a_run_s_state_is_one_line_or_as_if_it_were_missing(name, tmp_path, caplog):
    for damage, data in DAMAGES.items():
        (tmp_path / name).write_bytes(data)
        if name == "about.json" and damage == "values":
            continue  # as it should be, as far as one can tell
        if name == "held_out.json" and damage == "other":
            (tmp_path / name).write_bytes(b'{"eval_loss": "x"}')
        with pytest.raises(UserError) as error:
            READERS[name](tmp_path)
        line = str(error.value)
        assert "\n" not in line and (str(tmp_path) in line or "as if it were missing" in line), (damage, line)


def test_sound_files_are_read(tmp_path):
    latent_scale.write(tmp_path, LatentScale(np.ones(3, np.float32), np.zeros(3, np.float32)))
    assert latent_scale.read(tmp_path).scale.tolist() == [1, 1, 1]
    (tmp_path / "a.json").write_text('{"a": 1}')
    for path in (tmp_path / "a.json", epath.Path(tmp_path / "a.json")):
        assert json_file.read(path, "-", ("a",)) == {"a": 1}
        with pytest.raises(UserError, match="b is missing"):
            json_file.read(path, "-", ("b",))


def test_files_that_are_none_or_too_large_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="no file"):
        json_file.read(tmp_path / "pipe", "-")
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(UserError, match="bytes"):
        json_file.read(tmp_path / "huge", "-")
    with pytest.raises(UserError, match="No such file"):
        json_file.read(Path(tmp_path / "gone"), "-")


def test_one_file_alone_parses_json_of_files():
    """Others parse text: lines of a file, answers of a server, headers."""
    folder = Path(json_file.__file__).parent
    by_hand = [p.name for p in sorted(folder.rglob("*.py")) if "json.loads(path.read_text" in p.read_text()]
    assert by_hand == []
