"""Data sets on S3 and GCS, as servers on this machine speak them."""

import json
import os

import pytest

from osjax import object_store
from osjax.data import clips, dataset, fingerprints, table
from osjax.errors import UserError
from tests import object_stores
from tests.object_stores import BROKEN, DOWN, SLOW

NEEDED = {"s3": ("moto.server", "s3fs"), "gcs": ("gcp_storage_emulator.server", "gcsfs")}
SCHEMES = {"s3": "s3", "gcs": "gs"}


@pytest.fixture(scope="module", params=NEEDED)
def store(request):
    for name in NEEDED[request.param]:
        pytest.importorskip(name)
    with getattr(object_stores, request.param)() as (store, environment), pytest.MonkeyPatch.context() as patch:
        for name, value in {**environment, "AWS_MAX_ATTEMPTS": "1"}.items():
            patch.setenv(name, value)
        store.scheme = SCHEMES[request.param]
        yield store


@pytest.fixture
def url(store, request, tmp_path, monkeypatch):
    monkeypatch.setenv("OSJAX_DATA_CACHE", str(tmp_path / "cache"))
    return f"{store.scheme}://bucket/{abs(hash(request.node.name))}"


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return rows_of(tmp_path_factory.mktemp("clips"), seed=0)


def rows_of(folder, seed):
    path = clips.write_clips(folder, clips.specs(3, seed, clips.combinations()), 32, 8, 8)
    about = {"num_frames": 8, "height": 32, "width": 32, "fps": 8.0}
    return [{**row, **about} for row in table.read(path)]


def texts(source):
    return [record["text"] for record in source]


def test_a_data_set_on_a_store_is_read_as_it_was_written_and_its_description_is_written_last(store, url, rows):
    store.seen = []
    made = dataset.build_clips(rows, url)
    assert made.startswith(url)
    if store.scheme == "s3":  # names are in the bodies of GCS's requests
        sent = [path for method, path in store.seen if method == "PUT"]
        assert "dataset_info" in sent[-1] and not any("dataset_info" in path for path in sent[:-1])
    source = dataset.open_source(made)
    assert [text.decode() for text in texts(source)] == [row["text"] for row in rows]
    store.seen = []
    dataset.open_source(made)  # from the cache
    assert not any("array_record" in path and "media" in path for _, path in store.seen)


def test_a_data_set_that_was_built_anew_replaces_the_copy_though_files_have_the_same_size(store, url, rows, tmp_path):
    made = dataset.build_clips(rows, url)
    before = texts(dataset.open_source(made))
    shard = next(name for name in object_store.sizes(made) if "array_record" in name)
    changed = rows_of(tmp_path / "other", seed=5)
    dataset.build_clips(changed, url)
    after = texts(dataset.open_source(made))
    assert after != before and [text.decode() for text in after] == [row["text"] for row in changed]
    # Cut to the same bytes on disk, the copy would pass by its size alone.
    cached = next((tmp_path / "cache").glob(f"*/{shard}"))
    listed = json.loads(cached.with_name(fingerprints.FILE).read_text())
    listed[shard]["sha256"] = "0" * 64
    cached.with_name(fingerprints.FILE).write_text(json.dumps(listed))
    cached.write_bytes(os.urandom(cached.stat().st_size))
    assert texts(dataset.open_source(made)) == after


@pytest.mark.parametrize("lost", ("dataset_info.json", "fingerprints.json", "index.npy", "array_record"))
def test_a_data_set_whose_upload_broke_off_is_refused(store, url, rows, lost):
    made = dataset.build_clips(rows, url)
    name = next(name for name in object_store.sizes(made) if lost in name)
    object_store.remove(f"{made}/{name}")
    with pytest.raises(UserError, match=f"{made} (holds no data set|has no fingerprints|is not whole)") as error:
        dataset.open_source(made)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrong", (403, 404, DOWN, BROKEN))
def test_a_shard_that_cannot_be_read_is_one_line_with_its_url(store, url, rows, wrong):
    if wrong in (DOWN, BROKEN) and store.scheme == "gs":
        pytest.skip("gcsfs tries for minutes, and cannot be told not to")
    made = dataset.build_clips(rows, url)
    with store.failing(lambda method, path: wrong if "array_record" in path and method == "GET" else None):
        with pytest.raises(UserError, match=f"{made}/.*array_record.* cannot be read") as error:
            dataset.open_source(made)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600
    with store.failing(lambda method, path: SLOW):
        assert len(dataset.open_source(made)) == len(rows)
