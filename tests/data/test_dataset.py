"""Data sets in ArrayRecord files: clips and cached features go in and come back, without TensorFlow."""

import subprocess
import sys

import numpy as np
import pytest

from osjax.curation import probe
from osjax.data import cache, clips, dataset, video
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


def test_the_files_are_array_records(table_path, tmp_path):
    folder = dataset.build_clips(probe.probe(table_path).kept, tmp_path)
    assert list(folder.glob("*.array_record*")) and not list(folder.glob("*.tfrecord*"))


def test_cached_features_come_back_exactly(tmp_path):
    rng = np.random.default_rng(0)

    def example(i):
        shapes = {"latents": (2, 4, 4, 8), "head": (1, 4, 4, 8), "tail": (1, 4, 4, 8)}
        return {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()} | {"text": f"caption {i}"}

    examples = [example(i) for i in range(3)]
    source = dataset.open_source(cache.write_features(tmp_path, (2, 4, 4, 8), lambda: iter(examples)))
    for i, want in enumerate(examples):
        for name in ("latents", "head", "tail"):
            np.testing.assert_array_equal(source[i][name], want[name])
        assert source[i]["text"].decode() == want["text"]


def test_neither_tensorflow_nor_jax_is_imported(table_path, tmp_path):
    program = (
        "import sys\n"
        "from osjax.curation import probe\n"
        "from osjax.data import dataset, loader\n"
        f"source = dataset.open_source(dataset.build_clips(probe.probe({str(table_path)!r}).kept, {str(tmp_path)!r}))\n"
        "next(loader.batches(len(source), loader.ClipReader(source, 8, 32, 32), 2, 0))\n"
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
