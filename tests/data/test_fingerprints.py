"""Damaged shards are named, and data sets are found at URLs as in folders."""

import json
from pathlib import Path

import fsspec
import numpy as np
import pytest

from osjax import atomic, json_file
from osjax.data import clips, dataset, fingerprints, loader, remote, table
from osjax.errors import UserError

COUNT = 6


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = clips.write_clips(tmp_path_factory.mktemp("clips"), clips.specs(COUNT, 0, clips.combinations()), 32, 8, 8)
    about = {"num_frames": 8, "height": 32, "width": 32, "fps": 8.0}
    return [{**row, **about} for row in table.read(path)]


@pytest.fixture
def folder(rows, tmp_path):
    return dataset.build_clips(rows, tmp_path)


def _shard(folder):
    return next(iter(folder.glob(dataset.SHARDS)))


def test_a_sound_data_set_passes(folder):
    assert fingerprints.check(folder) == len(list(folder.glob(dataset.SHARDS))) + len(dataset.FILES) >= 4
    assert len(dataset.open_source(folder)) == COUNT


def test_a_shard_cut_short_is_named_before_anything_is_read(folder):
    shard = _shard(folder)
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(UserError, match=f"{shard.name} has .* bytes instead of"):
        dataset.open_source(folder)


def test_a_missing_shard_is_named(folder):
    shard = _shard(folder)
    shard.unlink()
    with pytest.raises(UserError, match=f"{shard.name} is missing"):
        dataset.open_source(folder)


def test_a_shard_with_other_contents_is_named(folder):
    shard = _shard(folder)
    content = bytearray(shard.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 2000] = bytes(2000)
    shard.write_bytes(content)
    source = dataset.open_source(folder)  # the size is right
    with pytest.raises(UserError, match=f"{shard.name} is damaged"):
        fingerprints.check(folder)
    with pytest.raises(UserError, match=f"{shard.name} is damaged"):
        for at in range(COUNT):
            source[at]


def test_a_damaged_list_of_fingerprints_is_a_user_error(folder):
    (folder / fingerprints.FILE).write_text("[1]")
    with pytest.raises(UserError, match="fingerprints.json cannot be read"):
        dataset.open_source(folder)


@pytest.mark.parametrize("name", ["[" * 5000, "a/b", "..", "", "a\0b", "é" * 200], ids=lambda name: name[:4])
def test_a_list_with_a_name_that_no_file_can_have_is_a_user_error(folder, name):
    listed = json_file.read(folder / fingerprints.FILE, "")
    atomic.write_text(folder / fingerprints.FILE, json.dumps({**listed, name: {"bytes": 1, "sha256": ""}}))
    with pytest.raises(UserError, match="fingerprints.json is damaged .*no file's name") as error:
        dataset.open_source(folder)
    assert len(str(error.value)) < 400


def test_the_index_tells_what_the_records_tell(folder):
    source = dataset.open_source(folder)
    found = source.index()
    assert isinstance(found, np.memmap) and found["num_frames"].tolist() == [int(r["num_frames"]) for r in source]
    (folder / "index.npy").unlink()
    np.testing.assert_array_equal(dataset.open_source(folder).index(), found)


def test_a_data_set_at_a_url_equals_one_in_a_folder(rows, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("OSJAX_DATA_CACHE", str(tmp_path / "cache"))
    url = dataset.build_clips(rows, "memory://bucket/set")
    assert url.startswith("memory://bucket/set/")
    at_url, local = dataset.open_source(url), dataset.open_source(f"file://{folder}")
    assert [at_url[i]["video"] for i in range(COUNT)] == [local[i]["video"] for i in range(COUNT)]
    with pytest.raises(UserError, match="memory://bucket/nothing"):
        dataset.open_source("memory://bucket/nothing")


def test_what_a_url_names_is_read_and_names_that_only_look_like_urls_are_files(rows, tmp_path, monkeypatch):
    data = Path(rows[0]["path"]).read_bytes()
    with fsspec.open("memory://clips/a.mp4", "wb") as out:
        out.write(data)
    assert remote.read_bytes("memory://clips/a.mp4") == data
    with pytest.raises(UserError, match="memory://clips/b.mp4 cannot be read"):
        remote.read_bytes("memory://clips/b.mp4")
    monkeypatch.chdir(tmp_path)
    for name in ("simplecache::memory:/clips/a.mp4", "memory:/clips/a.mp4", "a::b.mp4"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"a file")
        assert remote.read_bytes(name) == remote.read_bytes(Path(name).absolute()) == b"a file"
    # The control: to fsspec they are places.
    with fsspec.open("simplecache::memory://clips/a.mp4", "rb") as file:
        assert file.read() == data
    assert remote.read_bytes("simplecache::memory://clips/a.mp4") == b"a file"  # of the folder `simplecache::memory:`


@pytest.mark.parametrize("video", [{"video": b""}, {"video": None}, {}])
def test_a_record_without_bytes_is_never_read_from_its_path(rows, video):
    record = {**rows[0], **video, "text": "a"}
    read = loader.read_record([record], loader.Window(8, 32, 32), 0, None)
    assert isinstance(read, loader.Undecodable) and "holds no bytes" in read.reason
    whole = {**record, "video": Path(rows[0]["path"]).read_bytes()}  # the control: there is a video at that path
    assert loader.read_record([whole], loader.Window(8, 32, 32), 0, None)["video"].shape == (8, 32, 32, 3)
