"""The store, and which videos go when there are too many."""

import threading
import time

import pytest

from osjax.serve.files import Files, new_id
from osjax.serve.options import Keep
from osjax.serve.retention import Retention, due
from osjax.serve.store import Store, Video


def row(prompt: str = "a", **fields) -> Video:
    common = {"seq": 0, "id": new_id(), "owner": "", "status": "queued", "priority": 0, "model": "tiny"}
    common |= {"settings": {"steps": 1}, "shown": {}, "together": "x", "references_count": 0, "remixed_from": None}
    return Video(**{**common, "prompt": prompt, "created": time.time(), **fields})


def test_videos_that_are_alike_are_taken_together_and_priorities_first():
    def order(*rows, most=2):
        import tempfile
        from pathlib import Path

        store = Store(Path(tempfile.mkdtemp()))
        for one in rows:
            store.add(one, 99, 99)
        out = [one.prompt for one in store.start(most)]
        store.close()
        return out

    a, b, c, d = row("a"), row("b", together="y"), row("c"), row("d", priority=3, together="y")
    assert order(a, b, c) == ["a", "c"] and order(a, b, c, most=1) == ["a"]
    assert order(a, b, c, d) == ["d", "b"]


def test_more_than_the_limits_may_not_wait(tmp_path):
    store = Store(tmp_path)
    store.add(row(owner="x"), 3, 1)
    with pytest.raises(OverflowError, match="key"):
        store.add(row(owner="x"), 3, 1)
    store.add(row(owner="y"), 3, 2)
    store.add(row(owner="y"), 3, 2)
    with pytest.raises(OverflowError, match="server"):
        store.add(row(owner="z"), 3, 2)


def test_many_threads_that_ask_with_one_key_get_one_video(tmp_path):
    store, ids = Store(tmp_path), []

    def ask():
        ids.append(store.add(row(idempotency_key="k"), 99, 99)[0].id)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 8 and len(set(ids)) == 1 and store.counts() == {"queued": 1}


def test_what_is_too_old_goes_and_then_the_oldest_until_the_rest_is_small_enough():
    day = 86400.0
    videos = [row(str(n), status="completed", ended=n * day, bytes=10**9) for n in range(5)]
    assert [v.prompt for v in due(videos, Keep(days=3.5, gb=100), 5 * day)] == ["0", "1"]
    assert [v.prompt for v in due(videos, Keep(days=100, gb=2), 5 * day)] == ["0", "1", "2"]
    assert [v.prompt for v in due(videos, Keep(days=3.5, gb=2), 5 * day)] == ["0", "1", "2"]
    assert due(videos, Keep(days=100, gb=5), 5 * day) == []


def test_retention_removes_rows_and_files_and_leaves_what_waits(tmp_path):
    store, files = Store(tmp_path), Files(tmp_path)
    old, new = (store.add(row(name), 9, 9)[0] for name in ("old", "new"))
    (files.folder(old.id)).mkdir()
    (files.folder(old.id) / "video.mp4").write_bytes(b"x")
    store.start(1)
    store.complete(old.id, 1)
    assert Retention(store, files, Keep(gb=1e-10)).once() == 1
    assert store.get(old.id) is None and not files.folder(old.id).exists() and store.get(new.id) is not None


def test_files_that_nobody_knows_are_swept_and_other_names_left(tmp_path):
    files, known, lost = Files(tmp_path), new_id(), new_id()
    for name in (known, lost, "notes"):
        (files.root / name).mkdir()
    assert files.sweep({known}) == 1
    assert sorted(path.name for path in files.root.iterdir()) == sorted([known, "notes"])
