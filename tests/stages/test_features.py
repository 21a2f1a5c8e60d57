"""Features on disk: what is in them, in which order, after a run that died, and made by two processes at once."""

import dataclasses
import json

import numpy as np
import pytest

from osjax.data import bucketed, clips, dataset, loader, transforms
from osjax.data.table import read
from osjax.errors import UserError
from osjax.stages import features
from tests.parallel.processes import free_port, together
from tests.stages import encode_process
from tests.stages.encode_process import BATCH, Pooled, clips_of, make

COUNT = 22  # two shards and three quarters of one


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    table = clips.write_clips(folder, clips.specs(COUNT, 0, clips.combinations()), 64, 8, 8)
    return dataset.build_clips(read(table), folder)


@pytest.fixture(scope="module")
def made(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    return folder, make(source, folder, Pooled())


def files(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*.array_record-*")}


def test_batches_of_features_are_those_of_the_videos(source, made):
    _, found = made
    wanted = clips_of(source)
    windows = {bucket: loader.Window(*wanted.table.shape(bucket)) for bucket in wanted.plan.buckets}
    videos = bucketed.batches(wanted.source, wanted.plan, windows)
    cached = found.batches(bucketed.Readers(2))
    for _ in range(12):
        video, row = next(videos), next(cached)
        assert list(row["index"]) == list(video["index"]) and list(row["text"]) == list(video["text"])
        pooled = transforms.unit(video["video"]).reshape(BATCH, 8, 8, 8, 8, 8, 3).mean((3, 5))
        np.testing.assert_allclose(row["latents"], pooled, atol=1e-5)
        np.testing.assert_array_equal(row["head_image"], row["latents"][:, :1])
        txt, vec = Pooled().encode_text(list(row["text"]))
        np.testing.assert_array_equal(row["txt"], txt)
        np.testing.assert_array_equal(row["vec"], vec)
    assert found.null[0].shape == (1, 3, 8) and not found.null[0].any()


def test_a_run_that_died_goes_on_with_the_shards_that_are_missing(source, made, tmp_path):
    folder, _ = made
    with pytest.raises(RuntimeError, match="device is gone"):
        make(source, tmp_path, Pooled(broken=4))
    done = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.array_record-*")}
    assert len(done) == 1
    with pytest.raises(UserError, match="holds no features of these clips in 8x64x64"):
        features.find(tmp_path, clips_of(source))
    make(source, tmp_path, Pooled())
    assert {path: path.stat().st_mtime_ns for path in done} == done and files(tmp_path) == files(folder)


def test_finished_features_are_not_made_again(source, made):
    folder, _ = made
    make(source, folder, Pooled(broken=1))  # would fail if it were asked for anything


def test_two_processes_make_the_files_of_one(source, made, tmp_path):
    folder, _ = made
    address = f"localhost:{free_port()}"
    out = str(tmp_path / "features")
    argv = [[str(source), out, address, str(i)] for i in range(2)]
    said = together(encode_process.main, argv, tmp_path, devices=2)
    one, other = (json.loads(text.splitlines()[-1]) for text in said)
    assert one["files"] == other["files"] == sorted(files(folder)) and len(one["files"]) == 3
    assert len(one["index"]) == BATCH // 2 and not set(one["index"]) & set(other["index"])
    together_made, alone_made = (dataset.open_source(next(path.iterdir())) for path in (tmp_path / "features", folder))
    for n in range(COUNT):
        got, want = together_made[n], alone_made[n]
        assert got["text"] == want["text"] and got["index"] == want["index"] == n
        for name in ("latents", "head_image", "vec"):
            np.testing.assert_allclose(got[name], want[name], atol=1e-6)


def test_features_of_captions_that_state_the_rate_are_others(source, made):
    folder, _ = made
    stated = dataclasses.replace(clips_of(source), state_fps=True)
    with pytest.raises(UserError, match="state_fps"):
        features.find(folder, stated)
