"""A server that others reach, with small limits, full and killed: who has no key gets nothing, what is too much gets a
reason, and what was promised before a kill is kept after it."""

import contextlib
import http.client
import io
import json
import os
import signal
import stat
import time

import pytest

from osjax.__main__ import main
from osjax.data import video
from osjax.serve.auth import Keys
from osjax.serve.store import Store
from tests.serve.asked import refused, upload
from tests.serve.server import Server
from tests.serve.test_store import row
from tests.small_disk import SmallDisk

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def keys():
    return {}  # of ann and bob, once they are made


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A small disk, or a folder where none can be mounted."""
    disk = SmallDisk(tmp_path_factory.mktemp("limits") / "disk")
    try:
        yield disk.mount(40_000)
    except pytest.skip.Exception:
        yield disk.place
    disk.close()


@pytest.fixture(scope="module")
def strict(workdir, place, keys):
    """A server on all addresses, with keys of ann, who may have one video waiting, and of bob."""
    flags = (
        "--host=0.0.0.0",
        "--config.limits.body_s=2",
        "--config.limits.upload_mb=1",
        "--config.limits.json_mb=1",
        "--config.limits.free_mb=20",
    )
    for name, more in (("ann", ["--key-queued=1"]), ("bob", ["--key-priority=9"])):
        with contextlib.redirect_stdout(io.StringIO()) as told:
            assert main(["serve", f"--folder={place / 'folder'}", f"--make-key={name}", *more]) == 0
        keys[name] = {"Authorization": f"Bearer {told.getvalue().strip()}"}
    with Server(workdir, place / "folder", *flags) as running:
        yield running


def test_another_address_than_loopback_wants_keys_before_it_starts(workdir, tmp_path, capsys):
    flags = ["serve", f"--workdir={workdir}", f"--folder={tmp_path}"]
    assert main([*flags, "--host=0.0.0.0"]) == 2
    assert "--make-key=NAME" in capsys.readouterr().err
    assert main([*flags, "--make-key=bob"]) == 0
    key = capsys.readouterr().out.strip()
    assert main([*flags, "--make-key=bob"]) == 2 and main([*flags, "--revoke-key=eve"]) == 2
    path = tmp_path / "keys.json"
    assert key not in path.read_text() and stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_who_has_no_key_gets_nothing_and_who_has_one_its_own_alone(strict, place, keys):
    ann, bob, key = keys["ann"], keys["bob"], keys["ann"]["Authorization"].split()[1]
    for headers in ({}, {"Authorization": f"Bearer {key}x"}, {"Authorization": key}, {"Authorization": "Bearer "}):
        for path in ("/v1/videos", "/v1/models", "/metrics", "/docs", "/openapi.json", "/nothing"):
            refused(strict.ask("GET", path, headers=headers), 401)
    assert strict.ask("GET", "/health")[0] == 200
    status, made = strict.ask("POST", "/v1/videos", {"prompt": "a", "steps": 200, "frames": 64}, ann)
    assert status == 200
    refused(strict.ask("POST", "/v1/videos", {"prompt": "a"}, ann), 429)  # one at a time
    refused(strict.ask("POST", "/v1/videos", {"prompt": "a", "priority": 1}, ann), 403)
    for method, path in (("GET", ""), ("GET", "/content"), ("GET", "/events"), ("DELETE", ""), ("POST", "/cancel")):
        refused(strict.ask(method, f"/v1/videos/{made['id']}{path}", headers=bob), 404)  # another's
    assert strict.ask("GET", "/v1/videos", headers=bob)[1]["data"] == []
    assert strict.ask("DELETE", f"/v1/videos/{made['id']}", headers=ann)[0] == 200
    Keys(place / "folder").revoke("ann")
    refused(strict.ask("GET", "/v1/videos", headers=ann), 401)
    assert key not in strict.process.stderr


def test_a_body_that_never_ends_is_cut_off(strict, keys):
    strict.own = keys["bob"]
    started, line = time.monotonic(), http.client.HTTPConnection("127.0.0.1", strict.port, timeout=20)
    line.putrequest("POST", "/v1/videos")
    for name, value in {**keys["bob"], "Content-Type": "application/json", "Content-Length": "1000"}.items():
        line.putheader(name, value)
    line.endheaders(b"{")
    answer = line.getresponse()
    assert answer.status == 408 and "slowly" in json.loads(answer.read())["error"]["message"]
    assert time.monotonic() - started < 10
    line = http.client.HTTPConnection("127.0.0.1", strict.port, timeout=20)
    line.putrequest("POST", "/v1/videos")
    for name, value in {**keys["bob"], "Content-Type": "application/json", "Transfer-Encoding": "chunked"}.items():
        line.putheader(name, value)
    line.endheaders()
    with contextlib.suppress(OSError):
        for _ in range(64):
            line.send(b"10000\r\n" + b" " * 65536 + b"\r\n")
    assert line.getresponse().status == 413
    refused(upload(strict, bytes(1500 << 10)), 400)  # one file, within the whole
    assert strict.ask("GET", "/health")[0] == 200


def test_a_full_disk_takes_no_new_video_and_goes_on_serving(strict, place, keys):
    if not place.is_mount():
        pytest.skip("mounting a small disk takes root")
    strict.own = keys["bob"]
    done = strict.over(strict.video(steps=1)["id"])
    (place / "filling").write_bytes(bytes(25 << 20))
    status, answer = strict.ask("POST", "/v1/videos", {"prompt": "a"})
    assert status == 507 and answer["error"]["code"] == "disk_full"
    status, data = strict.ask("GET", f"/v1/videos/{done['id']}/content", raw=True)
    assert status == 200 and video.decode(data).shape == (8, 32, 32, 3)
    (place / "filling").unlink()
    assert strict.over(strict.video(steps=1)["id"])["status"] == "completed"


def running(server: Server) -> tuple[int, str]:
    """(process of the models, id of a video that it has begun) where that process does nothing from now on."""
    process = [line["process"] for line in server.log if line["event"] == "models"][-1]
    while True:  # stopped before it had said that it was idle it gets no video
        os.kill(process, signal.SIGSTOP)
        id = server.video(steps=1)["id"]
        with contextlib.suppress(AssertionError):
            server.until(id, "in_progress", 2)
            return process, id
        os.kill(process, signal.SIGCONT)
        server.over(id)


def test_the_process_of_the_models_is_started_again_with_the_video_that_it_made(strict, keys):
    strict.own = keys["bob"]
    strict.over(strict.video(steps=1)["id"])
    process, id = running(strict)
    os.kill(process, signal.SIGKILL)
    assert strict.over(id)["status"] == "completed"
    assert "osjax_model_restarts_total 1.0" in strict.ask("GET", "/metrics", raw=True)[1].decode()


def test_a_killed_server_comes_back_with_its_queue_and_its_videos(strict, keys):
    strict.own = keys["bob"]
    done = strict.over(strict.video(steps=1)["id"])
    _, before = strict.ask("GET", f"/v1/videos/{done['id']}/content", raw=True)
    process, id = running(strict)
    waits = [id, *(strict.video(f"video {n}", steps=1)["id"] for n in range(2))]
    strict.kill()
    os.kill(process, signal.SIGCONT)  # it sees that it works for nobody any more
    strict.start()
    assert [strict.over(id)["status"] for id in waits] == ["completed"] * 3
    assert strict.ask("GET", f"/v1/videos/{done['id']}/content", raw=True)[1] == before
    _, runs = running(strict)
    assert strict.stop() == 0 and "Traceback" not in strict.process.stderr
    with contextlib.closing(Store(strict.folder)) as store:
        assert store.get(runs).status == "in_progress"  # which `recover` puts back, as after a kill


def test_a_store_says_completed_only_of_what_is_on_disk(tmp_path):
    store = Store(tmp_path)
    first, second = store.add(row("a"), 9, 9)[0], store.add(row("b"), 9, 9)[0]
    assert [one.id for one in store.start(5)] == [first.id, second.id]
    store.complete(first.id, 10)
    store.close()
    again = Store(tmp_path)
    assert again.recover() == 1
    assert (again.get(first.id).status, again.get(second.id).status) == ("completed", "queued")
    again.fail(first.id, "late", "a finished video stays finished")
    assert again.get(first.id).status == "completed"
