"""Copies of checkpoints on S3, as moto's server speaks it, with what goes wrong on the way to a store."""

import json
import time

import pytest
from etils import epath

from osjax import integrity, object_store
from osjax.errors import UserError
from osjax.training import copies
from tests import object_stores
from tests.object_stores import BROKEN, DOWN, SLOW

pytest.importorskip("moto.server")
pytest.importorskip("s3fs")


@pytest.fixture(scope="module")
def store():
    with object_stores.s3() as (store, environment), pytest.MonkeyPatch.context() as patch:
        for name, value in {**environment, "AWS_MAX_ATTEMPTS": "1"}.items():
            patch.setenv(name, value)
        patch.setattr(copies, "POLL_S", 0.05)
        patch.setattr(copies, "LONGEST_WAIT_S", 0.2)
        yield store


@pytest.fixture
def url(store, request):
    return f"s3://bucket/{abs(hash(request.node.name))}/checkpoints"


def checkpoint(folder, step: int, words: str = ""):
    """A sealed folder of files, as a checkpoint is; its folder."""
    made = folder / str(step)
    (made / "params/d").mkdir(parents=True, exist_ok=True)
    (made / "params/d/one").write_text(f"one of {step} {words}" * 2000)
    (made / "params/manifest.ocdbt").write_text(f"manifest of {step} {words}")
    seal(folder, step)
    return made


def seal(folder, step):
    integrity.write_seal(epath.Path(folder / str(step)), epath.Path(folder.parent / f"{folder.name}.seals/{step}.json"))


def copy(url, folder, keep=2, keep_every=0):
    """Copy what is sealed in a folder, and no more."""
    with copies.copied(url, folder, keep, keep_every, "stage"):
        pass


def test_a_copy_comes_back_as_it_was_and_its_seal_is_written_last(store, url, tmp_path):
    made, store.seen = checkpoint(tmp_path / "a/checkpoints", 3), []
    copy(url, made.parent)
    put = [path for method, path in store.seen if method == "PUT"]
    assert len(put) == 3 and put[-1].endswith("checkpoints.seals/3.json")
    assert copies.steps(url) == [3] and copies.bring(url, made.parent) is None  # nothing is newer
    other = tmp_path / "b/checkpoints"
    assert copies.bring(url, other) == 3
    for name in ("params/d/one", "params/manifest.ocdbt"):
        assert (other / "3" / name).read_bytes() == (made / name).read_bytes()
    assert integrity.damage(epath.Path(other / "3"), epath.Path(tmp_path / "b/checkpoints.seals/3.json")) is None
    assert sorted(p.name for p in other.iterdir()) == ["3"]


def test_the_store_keeps_what_the_folder_would(store, url, tmp_path):
    folder = tmp_path / "checkpoints"
    for step in (10, 20, 25, 30):
        checkpoint(folder, step)
        copy(url, folder, keep=1, keep_every=20)
    assert copies.steps(url) == [20, 30]
    assert {name.split("/")[0] for name in object_store.sizes(url)} == {"20", "30"}


def test_after_a_return_to_an_older_checkpoint_newer_copies_go_and_a_step_done_again_is_copied_again(
    store, url, tmp_path
):
    folder = tmp_path / "checkpoints"
    for step in (10, 20, 30):
        checkpoint(folder, step)
        copy(url, folder, keep=3)
    with copies.copied(url, folder, 3, 0, "stage"):
        for step in (30, 20):
            (folder / str(step)).rename(folder / f"{step}.damaged")
        until(lambda: copies.steps(url) == [10])
        checkpoint(folder, 20, "again")
    assert copies.steps(url) == [10, 20]
    assert b"again" in object_store.read(f"{url}/20/params/d/one")


def test_a_copy_that_broke_off_is_none(store, url, tmp_path):
    folder = tmp_path / "checkpoints"
    checkpoint(folder, 10)
    copy(url, folder)
    object_store.write(f"{url}/20/params/d/one", b"half")  # no seal
    assert copies.steps(url) == [10] and copies.bring(url, tmp_path / "new/checkpoints") == 10
    checkpoint(folder, 30)
    copy(url, folder)
    assert {name.split("/")[0] for name in object_store.sizes(url)} == {"10", "30"}


@pytest.mark.parametrize("wrong", (403, 404, 503, DOWN))
def test_while_the_store_refuses_the_block_goes_on_and_what_is_newest_is_copied_later(
    store, url, tmp_path, capsys, wrong
):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    with copies.copied(url, folder, 2, 0, "stage"):
        with store.failing(lambda method, path: wrong if method == "PUT" else None):
            checkpoint(folder, 10)
            until(lambda: "tried again" in capsys.readouterr().err)
            checkpoint(folder, 20)
        until(lambda: 20 in copies.steps(url))
    assert copies.steps(url) == [20]


def test_an_outage_is_told_once_in_one_line_with_the_url(store, url, tmp_path, capsys):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    with copies.copied(url, folder, 2, 0, "stage"):
        with store.failing(lambda method, path: DOWN):
            checkpoint(folder, 10)
            time.sleep(3)
        until(lambda: 10 in copies.steps(url))
    told = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(told) == 2 and url in told[0] and "not copied yet" in told[0] and "answers again" in told[1]


def test_a_store_that_stays_away_at_the_end_is_one_line_and_the_checkpoint_stays_here(
    store, url, tmp_path, monkeypatch
):
    monkeypatch.setattr(copies, "PATIENCE_S", 0.1)
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    with store.failing(lambda method, path: DOWN if method == "PUT" else None):
        with pytest.raises(UserError, match=f"checkpoint 10 is in {folder} and not in the store: {url}") as error:
            with copies.copied(url, folder, 2, 0, "stage"):
                checkpoint(folder, 10)
    assert "\n" not in str(error.value)
    copy(url, folder)  # the same command copies it
    assert copies.steps(url) == [10]


@pytest.mark.parametrize("wrong", (403, 503, DOWN, BROKEN))
def test_a_store_that_cannot_be_read_at_the_start_is_one_line_with_the_url(store, url, tmp_path, wrong):
    checkpoint(tmp_path / "a/checkpoints", 10)
    copy(url, tmp_path / "a/checkpoints")
    with store.failing(lambda method, path: wrong if "params" in path else None):
        with pytest.raises(UserError, match=f"{url}/10/params.* cannot be read") as error:
            copies.bring(url, tmp_path / "b/checkpoints")
    assert "\n" not in str(error.value)
    assert not [p for p in (tmp_path / "b/checkpoints").iterdir()]  # nothing half-made
    with store.failing(lambda method, path: SLOW):
        assert copies.bring(url, tmp_path / "b/checkpoints") == 10


def test_a_damaged_copy_is_never_taken(store, url, tmp_path):
    folder = tmp_path / "checkpoints"
    made = checkpoint(folder, 10)
    copy(url, folder)
    whole = (made / "params/d/one").read_bytes()
    object_store.write(f"{url}/10/params/d/one", whole[:-1] + b"x")
    with pytest.raises(UserError, match=f"{url}/10 is damaged .*params/d/one has changed"):
        copies.bring(url, tmp_path / "b/checkpoints")
    assert not list((tmp_path / "b/checkpoints").iterdir())


@pytest.mark.parametrize("name", ("../../../out", "/tmp/osjax-out", "a/../../../out"))
def test_a_seal_that_names_a_file_elsewhere_is_refused(store, url, tmp_path, name):
    object_store.write(f"{url}.seals/5.json", json.dumps({name: [3, 1]}).encode())
    with pytest.raises(UserError, match="outside the checkpoint"):
        copies.bring(url, tmp_path / "b/checkpoints")


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
