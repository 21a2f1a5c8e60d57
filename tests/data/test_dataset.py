"""Data sets in ArrayRecord files: clips and cached features go in and come back, without TensorFlow."""

import subprocess
import sys
import tempfile
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.utils import gcs_utils

from osjax.curation import probe
from osjax.data import cache, clips, dataset, fingerprints, loader, video
from osjax.errors import UserError


@pytest.fixture(scope="module")
def table_path(tmp_path_factory):
    return clips.write_clips(tmp_path_factory.mktemp("clips"), clips.specs(4, 0, clips.combinations()), 32, 8, 8)


def test_clips_come_back_in_the_order_of_the_table(table_path, tmp_path):
    rows = probe.probe(table_path).kept
    source = dataset.open_source(dataset.build_clips(rows, tmp_path))
    assert len(source) == 4
    for row, record in zip(rows, (source[i] for i in range(4)), strict=True):
        assert record["text"].decode() == row["text"] and record["fps"] == 8
        np.testing.assert_array_equal(video.decode(record["video"]), video.decode(row["path"]))
    assert source[0]["video"] != source[1]["video"]


def test_building_asks_no_bucket_and_leaves_no_temporary_folder(table_path, tmp_path, monkeypatch):
    """TFDS looks in a bucket of its own for a data set of the same name; here a record of every question is kept."""
    asked, temporary = [], tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(gcs_utils, "exists", lambda path: asked.append(path) or False)
    monkeypatch.setattr(gcs_utils, "_is_gcs_disabled", False)  # its releases differ in that
    dataset.build_clips(probe.probe(table_path).kept, tmp_path / "set")
    assert asked == [] and list(temporary.iterdir()) == []
    tfds.core.DatasetInfo.initialize_from_bucket(SimpleNamespace(full_name="osjax/1.0.0"))  # the control
    assert len(asked) == 1 and len(list(temporary.iterdir())) == 1


def test_the_files_are_array_records(table_path, tmp_path):
    folder = dataset.build_clips(probe.probe(table_path).kept, tmp_path)
    assert list(folder.glob("*.array_record*")) and not list(folder.glob("*.tfrecord*"))


def test_cached_features_come_back_exactly_whatever_the_order_their_shards_were_made_in(tmp_path):
    rng = np.random.default_rng(0)
    shapes = {"latents": (2, 4, 4, 8), "head_image": (1, 4, 4, 8)}
    examples = [{k: rng.standard_normal(s, np.float32) for k, s in shapes.items()} for _ in range(5)]
    for n, example in enumerate(examples):
        example |= {"text": f"clip {n}", "index": n, "txt": rng.bytes(6), "vec": rng.standard_normal(3, np.float32)}
    parts, kinds = cache.shards(5, 2), cache.features(shapes, text=True)
    for number in (2, 0, 1):
        rows = [examples[at] for at in parts[number]]
        cache.write_shard(cache.shard_file(tmp_path, number, len(parts)), kinds, rows)
    cache.finish(tmp_path, kinds, parts)
    source = dataset.open_source(tmp_path)
    assert len(source) == 5 and fingerprints.check(tmp_path) == 3 + 2
    for got, want in zip(source, examples, strict=True):
        assert got["text"].decode() == want["text"] and got["txt"] == want["txt"]
        for name in (*shapes, "vec", "index"):
            np.testing.assert_array_equal(got[name], want[name])


def test_the_card_says_what_is_in_a_data_set(table_path, tmp_path):
    rows = probe.probe(table_path).kept
    folder = dataset.build_clips([*rows, {**rows[0], "num_frames": 1, "fps": float("nan")}], tmp_path)
    card = (folder / "README.md").read_text()
    assert f"- {len(rows) + 1} clips, {sum(row['num_frames'] for row in rows) + 1} frames" in card
    assert dataset.open_source(folder).identity() in card and "image (1)" in card


def test_a_shard_that_breaks_off_is_not_there(tmp_path):
    def broken():
        yield {"latents": np.zeros((1, 1, 1, 1), np.float32), "text": "", "index": 0}
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError):
        cache.write_shard(cache.shard_file(tmp_path, 0, 1), cache.features({"latents": (1, 1, 1, 1)}), broken())
    assert not list(tmp_path.iterdir())


def test_neither_tensorflow_nor_jax_is_imported(table_path, tmp_path):
    program = (
        "import sys\n"
        "from osjax.curation import probe\n"
        "from osjax.data import dataset, loader\n"
        f"source = dataset.open_source(dataset.build_clips(probe.probe({str(table_path)!r}).kept, {str(tmp_path)!r}))\n"
        "loader.ClipReader(source, loader.Window(8, 32, 32))(0)\n"
        "print([m for m in ('tensorflow', 'torch') if m in sys.modules])\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().splitlines()[-1] == "[]"


def test_building_again_replaces_the_older_data_set(table_path, tmp_path):
    rows = probe.probe(table_path).kept
    assert len(dataset.open_source(dataset.build_clips(rows[:1], tmp_path))) == 1
    source = dataset.open_source(dataset.build_clips(rows[1:], tmp_path))
    assert [source[i]["text"].decode() for i in range(len(source))] == [row["text"] for row in rows[1:]]


def test_captions_state_the_motion_that_all_clips_of_a_table_were_scored_with(table_path, tmp_path):
    rows = [{k: v for k, v in row.items() if k != "motion"} for row in probe.probe(table_path).kept]
    window = loader.Window(4, 32, 32, state_fps=True, state_motion=True)
    for name, scored, words in (("all", rows, " 8 FPS, 4 motion score."), ("some", rows[1:], " 8 FPS.")):
        table = [{**row, "motion": "3.6"} if row in scored else row for row in rows]  # as a CSV file gives it
        source = dataset.open_source(dataset.build_clips(table, tmp_path / name))
        assert loader.ClipReader(source, window)(0)["text"] == rows[0]["text"] + words
    rate = loader.Window(4, 32, 32, state_fps=True)
    source = dataset.open_source(dataset.build_clips([{**row, "motion": "3.6"} for row in rows], tmp_path / "rate"))
    assert loader.ClipReader(source, rate)(0)["text"] == rows[0]["text"] + " 8 FPS."


def test_an_empty_list_and_a_missing_data_set_are_user_errors(tmp_path):
    with pytest.raises(UserError, match="no clip is left"):
        dataset.build_clips([], tmp_path)
    with pytest.raises(UserError, match="holds no data set"):
        dataset.open_source(tmp_path / "nothing")


def test_a_clip_that_vanishes_while_the_data_set_is_built_is_a_user_error(table_path, tmp_path):
    rows = [{**row, "path": str(tmp_path / "gone.mp4")} for row in probe.probe(table_path).kept]
    with pytest.raises(UserError, match="gone.mp4"):
        dataset.build_clips(rows, tmp_path / "set")
    with pytest.raises(UserError, match="holds no data set"):
        dataset.open_source(tmp_path / "set")
