"""The videos API as clients use it: the unmodified client of OpenAI, and plain requests for what is ours."""

import base64
import io
import json
import urllib.request
import warnings

import numpy as np
import pytest
from openai import BadRequestError, NotFoundError, OpenAI
from PIL import Image

from osjax.__main__ import main
from osjax.data import video
from tests.text_server import words

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
RED = np.full((48, 64, 3), (200, 30, 30), np.uint8)


@pytest.fixture(scope="module")
def client(server):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def png(image=RED) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def test_the_client_of_openai_makes_a_video_from_end_to_end(client):
    made = client.videos.create(model="tiny", prompt="a red circle", seconds="1", size="32x32")
    assert (made.object, made.model, made.prompt, made.seconds, made.size) == (
        "video",
        "tiny",
        "a red circle",
        "1",
        "32x32",
    )
    assert made.status in ("queued", "in_progress") and made.progress < 100 and made.created_at > 1e9
    made = client.videos.poll(made.id, poll_interval_ms=50)
    assert (made.status, made.progress, made.error) == ("completed", 100, None)
    assert made.completed_at >= made.created_at and made.expires_at > made.completed_at
    assert video.decode(client.videos.download_content(made.id).read()).shape == (8, 32, 32, 3)
    for variant, kind in (("thumbnail", "WEBP"), ("spritesheet", "JPEG")):
        with Image.open(io.BytesIO(client.videos.download_content(made.id, variant=variant).read())) as image:
            assert image.format == kind
    remix = client.videos.remix(made.id, prompt="a blue square")
    assert remix.remixed_from_video_id == made.id and client.videos.poll(remix.id).status == "completed"
    assert [one.id for one in client.videos.list(limit=1)][:2] == [remix.id, made.id]  # it asks for page after page
    assert client.videos.delete(made.id).deleted
    with pytest.raises(NotFoundError, match="no such video"):
        client.videos.retrieve(made.id)
    assert [model.id for model in client.models.list()] == ["tiny"]


def test_a_video_is_the_one_that_osjax_sample_makes(client, server, workdir, tmp_path):
    fields = {"seed": 5, "steps": 2, "negative": "blurry"}
    made = client.videos.create(prompt="a", input_reference=("first.png", png(), "image/png"), extra_body=fields)
    made = client.videos.poll(made.id, poll_interval_ms=50)
    assert (made.status, made.mode, made.seed, made.steps) == ("completed", "i2v_head", 5, 2)
    (tmp_path / "first.png").write_bytes(png())
    flags = ["--seed=5", "--steps=2", "--negative=blurry", "--mode=i2v_head", f"--ref={tmp_path / 'first.png'}"]
    assert (
        main(["sample", f"--workdir={workdir}", "--cache=", "--prompt=a", f"--output={tmp_path / 'out'}", *flags]) == 0
    )
    (path,) = (tmp_path / "out").glob("*.mp4")
    served = video.decode(client.videos.download_content(made.id).read())
    assert np.abs(served.astype(int) - video.decode(path)).max() <= 1  # another process, other optimisations
    other = client.videos.poll(client.videos.create(prompt="a", extra_body=fields).id, poll_interval_ms=50)
    assert np.abs(served.astype(int) - video.decode(client.videos.download_content(other.id).read())).max() > 5


def test_a_video_is_made_longer_by_windows_whose_seams_are_told(client, server):
    made = client.videos.poll(client.videos.create(prompt="a", extra_body={"steps": 2}).id, poll_interval_ms=50)
    fields = {"prompt": "b", "seconds": "2", "video": {"id": made.id}, "seed": 3}
    _, more = server.ask("POST", "/v1/videos/extensions", fields)  # the client takes files alone
    more = client.videos.poll(more["id"], poll_interval_ms=50)
    assert (more.status, more.seconds, more.frames, more.longer_of) == ("completed", "3", 24, made.id)
    assert more.seams == [1.0, 1.875, 2.75] and more.steps == 3 * 2  # windows of 8 frames, the first of each is known
    whole, first = (video.decode(client.videos.download_content(one.id).read()) for one in (more, made))
    assert whole.shape == (24, 32, 32, 3) and np.abs(whole[:8].astype(int) - first).mean() < 3  # encoded twice
    file = ("made.mp4", client.videos.download_content(made.id).read(), "video/mp4")
    from_file = client.videos.extend(prompt="b", seconds="1", video=file, extra_body={"steps": 1})
    assert client.videos.poll(from_file.id, poll_interval_ms=50).frames == 16
    assert not list((server.folder / "videos").glob("*/source.npy"))  # which are as large as videos get
    wrong = ({"seconds": 1}, {"seconds": 1, "video": {"id": "video_no"}}, {"seconds": 900, "video": {"id": made.id}})
    for fields in (*wrong, {"seconds": 1, "video": "text"}, {"video": {"id": made.id}}):
        status, answer = server.ask("POST", "/v1/videos/extensions", {"prompt": "a", **fields})
        assert status in (400, 404) and answer["error"]["message"], fields
    with pytest.raises(BadRequestError, match="cannot be used"):
        client.videos.extend(prompt="a", seconds="1", video=("a.mp4", b"none", "video/mp4"))
    with pytest.raises(BadRequestError, match="remix"):
        client.videos.edit(prompt="a", video=("a.mp4", b"none", "video/mp4"))
    with pytest.raises(BadRequestError, match="keeps no references"):
        client.videos.remix(more.id, prompt="c")


def test_prompts_are_made_fuller_by_the_text_server_that_the_operator_named(client, server, text):
    assert server.ask("GET", "/v1/models")[1]["refines"]
    status, told = server.ask("POST", "/v1/videos/refine", {"prompt": "a cat"})
    assert (status, told) == (200, {"prompt": "a cat, in soft light", "motion": 5})
    made = client.videos.create(prompt="a cat", extra_body={"refine": True, "motion": "auto", "steps": 1})
    assert (made.prompt, made.asked_prompt) == ("a cat, in soft light", "a cat")
    assert made.settings["motion_score"] == 5 and server.over(made.id)["status"] == "completed"
    plain = server.video("a cat", motion="auto", steps=1)
    assert (plain["prompt"], plain["asked_prompt"], plain["settings"]["motion_score"]) == ("a cat", None, 5)
    before = len(text.requests)
    assert server.ask("POST", "/v1/videos", {"prompt": "a", "refine": True, "steps": 999})[0] == 400
    assert len(text.requests) == before  # nobody is asked for what cannot be made
    text.says = lambda body: (500, "secret of the text server")
    try:
        status, answer = server.ask("POST", "/v1/videos", {"prompt": "a", "refine": True})
    finally:
        text.says = words
    assert status == 502 and "secret" not in answer["error"]["message"] and answer["error"]["code"] == "text_server"


def test_adapters_are_asked_for_by_name(client, server):
    assert server.ask("GET", "/v1/models/tiny")[1]["loras"] == ["star"]
    plain, star = (server.over(server.video(seed=3, **lora)["id"]) for lora in ({}, {"lora": "star"}))
    assert (plain["lora"], star["lora"], star["model"], star["status"]) == (None, "star", "tiny", "completed")
    shown = [video.decode(client.videos.download_content(one["id"]).read()).astype(int) for one in (plain, star)]
    assert np.abs(shown[0] - shown[1]).mean() > 1
    again = server.over(server.ask("POST", f"/v1/videos/{star['id']}/remix", {"prompt": "a"})[1]["id"])
    assert (again["lora"], again["status"]) == ("star", "completed")
    for wrong in ("moon", "../star", ""):
        status, answer = server.ask("POST", "/v1/videos", {"prompt": "a", "lora": wrong})
        assert status == 400 and "use one of star" in answer["error"]["message"]


def test_references_come_as_files_data_urls_and_videos(server):
    first = server.over(server.video(steps=1)["id"])
    url = "data:image/png;base64," + base64.b64encode(png()).decode()
    both = server.video(input_reference={"image_url": url}, last_reference={"video_id": first["id"]}, steps=1)
    assert both["mode"] == "i2v_loop" and server.over(both["id"])["status"] == "completed"
    tail = server.video(last_reference={"image_url": url}, steps=1)
    assert tail["mode"] == "i2v_tail" and server.over(tail["id"])["status"] == "completed"
    for wrong in (
        {"image_url": "http://127.0.0.1/x.png"},
        {"file_id": "file-1"},
        {"video_id": "../../etc"},
        "text",
        {},
    ):
        status, answer = server.ask("POST", "/v1/videos", {"prompt": "a", "input_reference": wrong})
        assert status in (400, 404) and answer["error"]["message"]


def test_a_file_tells_how_it_was_made(server):
    made = server.over(server.video("a red circle", seed=9)["id"])
    _, data = server.ask("GET", f"/v1/videos/{made['id']}/content", raw=True)
    status, told = server.ask("POST", "/v1/videos/settings", data)
    assert status == 200 and (told["prompt"], told["seed"], told["model"]) == ("a red circle", 9, "tiny")
    counts = {key: value for key, value in made["settings"].items() if key in told}  # not what others override
    assert {key: told[key] for key in counts} == counts and {"steps", "height", "width", "frames", "mode"} <= {*counts}
    status, answer = server.ask("POST", "/v1/videos/settings", png())
    assert status == 400 and "no settings of osjax" in answer["error"]["message"]


def test_seconds_become_frames_that_the_model_can_make(client, server):
    made = [server.video(seconds=seconds, steps=1) for seconds in (1, "2", 0.7, 1.4)] + [server.video(frames=12)]
    assert [one["frames"] for one in made] == [8, 16, 8, 12, 12] and made[-1]["seconds"] == "1.5"
    for one in made:
        server.ask("DELETE", f"/v1/videos/{one['id']}")
    for wrong, says in (
        ({"seconds": "4", "frames": 8}, "both given"),
        ({"frames": 9}, "nearest valid number is 8"),
        ({"seconds": 1000}, "at most"),
        ({"size": "33x32"}, "nearest valid width is 32"),
        ({"size": "8192x8192"}, "pixels a frame"),
        ({"steps": 201}, "200 at most"),
        ({"mode": "banana"}, "unknown condition mode"),
        ({"mode": "i2v_head"}, "takes one, and no reference came"),
        ({"solver": "banana"}, "unknown solver"),
        ({"model": "sora-2"}, "use one of tiny"),
        ({"banana": 1}, "banana: is not a field"),
        ({"prompt": "  "}, "prompt is empty"),
        ({"prompt": "a\ud800"}, "unicode"),
        ({"prompt": "a\0"}, "control characters"),
        ({"prompt": "a" * 5000}, "4000 at most"),
        ({"seed": 2**63}, "seed"),
        ({"guidance": float("inf")}, "guidance"),
    ):
        status, answer = server.ask("POST", "/v1/videos", {"prompt": "a", **wrong})
        assert status == 400 and says in answer["error"]["message"], answer
    with pytest.raises(BadRequestError, match="size"):
        client.videos.create(prompt="a", size="banana")


def test_progress_is_told_step_by_step_with_a_preview(server):
    server.over(server.video(steps=1)["id"])  # from which the preview learns
    made = server.video(steps=200, frames=64)
    with urllib.request.urlopen(f"{server.url}/v1/videos/{made['id']}/events", timeout=60) as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        events = [block.split("\n") for block in stream.read().decode().strip().split("\n\n")]
    told = [json.loads(lines[1].removeprefix("data: ")) for lines in events if lines[0].startswith("event")]
    assert told[-1]["status"] == "completed" and events[-1][0] == "event: completed"
    steps = [one["step"] for one in told if one["step"]]
    assert steps == sorted(steps) and steps and told[0]["steps"] == 200
    pictures = [one["preview"] for one in told if "preview" in one]
    assert pictures and all(text.startswith("data:image/png;base64,") for text in pictures)


def test_a_video_is_cancelled_at_its_next_step_and_one_that_waits_at_once(server):
    long, waits = server.video(steps=200, frames=64), server.video(steps=3)
    server.until(long["id"], "in_progress")
    assert server.ask("GET", f"/v1/videos/{waits['id']}")[1]["place"] == 1
    status, answer = server.ask("POST", f"/v1/videos/{waits['id']}/cancel")
    assert (status, answer["status"], answer["error"]["code"]) == (200, "failed", "cancelled")
    assert server.ask("POST", f"/v1/videos/{long['id']}/cancel")[0] == 200
    assert server.over(long["id"])["error"]["code"] == "cancelled"
    gone = server.video(steps=200, frames=64)
    server.until(gone["id"], "in_progress")
    assert server.ask("DELETE", f"/v1/videos/{gone['id']}") == (
        200,
        {"id": gone["id"], "object": "video.deleted", "deleted": True},
    )
    assert server.over(server.video(steps=1)["id"])["status"] == "completed"  # nothing holds the next one up
    assert not (server.folder / "videos" / gone["id"]).exists()


def test_the_same_idempotency_key_is_the_same_video(server):
    body, key = {"prompt": "a", "steps": 1}, {"Idempotency-Key": "once"}
    first, again = (server.ask("POST", "/v1/videos", body, key) for _ in range(2))
    assert first[1]["id"] == again[1]["id"] and again[0] == 200
    status, answer = server.ask("POST", "/v1/videos", {**body, "steps": 2}, key)
    assert status == 409 and "another request" in answer["error"]["message"]


def test_higher_priorities_go_first_and_samples_have_seeds_that_count_up(server):
    server.video(steps=200, frames=64)
    low, high = server.video(steps=1), server.video(steps=1, priority=5)
    places = [server.ask("GET", f"/v1/videos/{v['id']}")[1]["place"] for v in (low, high)]
    assert places[0] > places[1] == 1
    first = server.video(steps=1, samples=3, seed=7)
    rest = [server.ask("GET", f"/v1/videos/{id}")[1] for id in first["siblings"]]
    assert [first["seed"], *(v["seed"] for v in rest)] == [7, 8, 9]
    assert all(server.over(v["id"])["status"] == "completed" for v in (first, *rest))


def test_a_download_answers_ranges(server):
    made = server.over(server.video(steps=1)["id"])
    path = f"/v1/videos/{made['id']}/content"
    _, whole = server.ask("GET", path, raw=True)
    status, headers, part = server.whole("GET", path, headers={"Range": "bytes=10-19"})
    assert (status, part, headers["content-range"]) == (206, whole[10:20], f"bytes 10-19/{len(whole)}")
    assert server.whole("GET", path, headers={"Range": "bytes=99999999-"})[0] == 416


def test_pages_of_videos_lead_from_one_to_the_next(server):
    made = [server.video(f"page {n}", steps=1)["id"] for n in range(3)]
    _, page = server.ask("GET", "/v1/videos?limit=2&search=PAGE")
    assert [v["id"] for v in page["data"]] == made[:0:-1] and page["has_more"]
    _, rest = server.ask("GET", f"/v1/videos?limit=2&search=page&after={page['last_id']}")
    assert [v["id"] for v in rest["data"]] == made[:1] and not rest["has_more"]
    assert server.ask("GET", f"/v1/videos?order=asc&after={made[1]}&search=page")[1]["data"][0]["id"] == made[2]
    for wrong in ("limit=0", "limit=x", "order=up", "after=video_no"):
        status, answer = server.ask("GET", f"/v1/videos?{wrong}")
        assert status in (400, 404) and answer["error"]["message"]


def test_the_servers_state_is_told_to_people_and_machines(server):
    assert server.ask("GET", "/health") == (200, {"status": "ok"})
    assert server.ask("GET", "/ready") == (200, {"status": "ready"})
    text = server.ask("GET", "/metrics", raw=True)[1].decode()
    assert 'osjax_videos_total{outcome="completed"}' in text and "osjax_request_seconds_bucket" in text
    page = server.ask("GET", "/docs", raw=True)[1].decode()
    assert "POST /v1/videos/{id}/remix" in page and "//" not in page.replace("https://json-schema.org", "")
    server.process.until(lambda: any(line.get("path") == "/docs" for line in server.log), 10)
    line = next(line for line in server.log if line.get("path") == "/docs")
    assert {"request", "client", "key", "method", "path", "status", "ms", "bytes"} <= line.keys()
