"""What is left of a server's work when it, or the process of its models, is killed; and what it does on a full disk."""

import os
import signal

import pytest

from osjax.data import video
from osjax.serve.store import Store
from tests.serve.server import Server
from tests.serve.test_store import row

pytestmark = pytest.mark.timeout(300)


def models_of(server: Server) -> int:
    """The newest process that runs the models, as the log names it."""
    return [line["process"] for line in server.log if line["event"] == "models"][-1]


def test_a_killed_server_comes_back_with_its_queue_and_its_videos(workdir, tmp_path):
    with Server(workdir, tmp_path / "folder") as server:
        done = server.over(server.video(steps=1)["id"])
        _, before = server.ask("GET", f"/v1/videos/{done['id']}/content", raw=True)
        waits = [server.video(f"video {n}", steps=60, frames=64)["id"] for n in range(3)]
        server.until(waits[0], "in_progress")
        server.kill()
        server.start()
        assert [server.over(id)["status"] for id in waits] == ["completed"] * 3
        assert server.ask("GET", f"/v1/videos/{done['id']}/content", raw=True)[1] == before
        runs = server.video(steps=200, frames=64)["id"]
        server.until(runs, "in_progress")
        assert server.stop() == 0 and "Traceback" not in server.process.stderr
    assert Store(server.folder).get(runs).status == "in_progress"  # which `recover` puts back, as after a kill


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


def test_a_full_disk_takes_no_new_video_and_goes_on_serving(workdir, tmp_path, disk):
    place = disk.mount(40_000)
    with Server(workdir, place / "folder", "--config.limits.free_mb=20") as server:
        done = server.over(server.video(steps=1)["id"])
        (place / "filling").write_bytes(bytes(25 << 20))
        status, answer = server.ask("POST", "/v1/videos", {"prompt": "a"})
        assert status == 507 and answer["error"]["code"] == "disk_full"
        status, data = server.ask("GET", f"/v1/videos/{done['id']}/content", raw=True)
        assert status == 200 and video.decode(data).shape == (8, 32, 32, 3)
        (place / "filling").unlink()
        assert server.over(server.video(steps=1)["id"])["status"] == "completed"


def test_the_process_of_the_models_is_started_again_with_the_video_that_it_made(workdir, tmp_path):
    with Server(workdir, tmp_path / "folder") as server:
        server.over(server.video(steps=1)["id"])
        id = server.video(steps=200, frames=64)["id"]
        for _ in range(2):
            server.until(id, "in_progress")
            killed = models_of(server)
            os.kill(killed, signal.SIGKILL)
            server.process.until(lambda killed=killed: models_of(server) != killed, 20)
        assert server.over(id)["status"] == "completed"
        assert "osjax_model_restarts_total 2.0" in server.ask("GET", "/metrics", raw=True)[1].decode()
