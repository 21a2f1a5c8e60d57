"""Captions from a server on this machine that speaks the OpenAI chat protocol, behaves and misbehaves."""

import base64
import csv
import io
import json
import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from osjax.__main__ import main
from osjax.curation import caption, captioned, tables
from osjax.curation.isolate import Limits, Pool
from osjax.errors import UserError
from tests.curation.conftest import picture, write

ASPECTS = {name: f"the {name} of it" for name in caption.ASPECTS}
TEXT = " ".join(f"the {name} of it." for name in caption.ASPECTS)


class Server(ThreadingHTTPServer):
    """answers: (status, content) of the requests to come, the last for ever. requests: (time, body) of those seen."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = [(200, json.dumps(ASPECTS))]
        self.requests: list[tuple[float, dict]] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append(
                (time.monotonic(), {**body, "path": self.path, "key": self.headers["Authorization"]})
            )
            answers = self.server.answers
            status, content = answers.pop(0) if len(answers) > 1 else answers[0]
        message = {"role": "assistant", "content": content}
        reply = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": []}
        reply["choices"] = [{"index": 0, "finish_reason": "stop", "message": message}]
        data = json.dumps(reply if status == 200 else {"error": {"message": content}}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status == 429:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def pool():
    with Pool(Limits(workers=1)) as pool:
        yield pool


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for i in range(3):
        write(folder / f"{i}.mp4", picture(12, 64, 96, i))
    tables.write(folder / "clips.parquet", [{"path": f"{i}.mp4", "text": ""} for i in range(3)])
    return folder / "clips.parquet"


def ask(server, clips, pool, count=3, **changes):
    options = caption.Captioning(**{"url": server.url, "model": "m", "retries": 2, **changes})
    return caption.work(list(tables.rows(clips))[:count], pool, options)


def test_a_clip_is_shown_in_frames_and_described_in_six_aspects(server, clips, pool, monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    (row,) = ask(server, clips, pool, count=1, frames=3, side=48, key_variable="MY_KEY")
    assert row["text"] == TEXT and row["caption_camera"] == "the camera of it." and "pictures" not in row
    ((_, request),) = server.requests
    assert request["path"] == "/v1/chat/completions" and request["key"] == "Bearer secret"
    words, *images = request["messages"][0]["content"]
    assert "3 images" in words["text"] and all(name in words["text"] for name in caption.ASPECTS)
    shown = [Image.open(io.BytesIO(base64.b64decode(i["image_url"]["url"].split(",")[1]))) for i in images]
    assert [image.size for image in shown] == [(48, 32)] * 3
    assert len({image.tobytes() for image in shown}) == 3


def test_a_server_that_is_busy_is_asked_again(server, clips, pool):
    server.answers = [(429, "too many"), (500, "restarting"), (200, json.dumps(ASPECTS))]
    (row,) = ask(server, clips, pool, count=1)
    assert row["text"] == TEXT and len(server.requests) == 3


@pytest.mark.parametrize(
    "status, content, says",
    [
        (200, "I cannot help with that.", "no caption: the answer holds no JSON object"),
        (200, json.dumps({**ASPECTS, "style": ""}), "no caption: the answer lacks style"),
        (200, '{"subject": "a', "no caption: the answer holds no JSON object"),
        (200, '{"subject": }', "no caption: the answer is not JSON"),
        (400, "against our policy", "the caption server refuses it: Error code: 400"),
    ],
)
def test_a_clip_without_a_usable_answer_is_dropped_and_the_others_go_on(server, clips, pool, status, content, says):
    server.answers = [(status, content), (200, json.dumps(ASPECTS))]
    rows = ask(server, clips, pool, parallel=1)
    assert rows[0]["reason"].startswith(says) and [row["text"] for row in rows[1:]] == [TEXT, TEXT]


def test_words_around_the_answer_are_let_be():
    answer = f"Sure:\n```json\n{json.dumps(ASPECTS, indent=1)}\n``` Anything else?"
    assert " ".join(caption.parse(answer).values()) == TEXT
    with pytest.raises(ValueError, match="holds no JSON object"):
        caption.parse(None)


def test_requests_keep_to_the_rate(server, clips, pool):
    started = time.monotonic()
    ask(server, clips, pool, per_minute=60, parallel=3)
    assert max(at for at, _ in server.requests) - started > 1.99  # three at once would all come before the second is up


def test_a_step_whose_server_fails_goes_on_where_it_stood(server, clips, tmp_path, capsys):
    good = (200, json.dumps(ASPECTS))
    flags = [f"--config.caption.url={server.url}", "--config.caption.model=m", "--config.caption.retries=0"]
    flags += ["--config.caption.parallel=1", "--config.engine=loop", "--config.limits.workers=1"]
    command = ["data", "caption", str(clips), str(tmp_path / "out.parquet"), f"--root={clips.parent}", *flags]
    server.answers = [good, good, (401, "who are you")]
    assert main(command) == 1
    assert f"caption server {server.url} fails (Error code: 401" in capsys.readouterr().err
    server.answers = [good]
    assert main(command) == 0 and "3 clips kept, 0 dropped" in capsys.readouterr().out
    assert len(server.requests) == 4  # the first shard of two was not asked again
    assert [row["text"] for row in tables.rows(tmp_path / "out.parquet", clips.parent)] == [TEXT] * 3


def test_a_url_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="not http:// or https://"):
        caption.Captioning(url="file:///etc/passwd", model="m")


def test_a_server_that_is_not_there_is_named(clips, pool):
    with pytest.raises(UserError, match="caption server http://127.0.0.1:9/v1 fails .*run the same command again"):
        caption.work(list(tables.rows(clips)), pool, caption.Captioning("http://127.0.0.1:9/v1", "m", retries=0))


def words_of(path):
    with path.open(newline="") as file:
        return {row["path"].rsplit("/", 1)[1]: row["text"] for row in csv.DictReader(file)}


def test_fine_tuning_asks_the_server_for_captions_that_are_not_there_and_goes_on_where_it_failed(
    server, clips, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(captioned, "AT_ONCE", 1)
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    folder, run = shutil.copytree(clips.parent, tmp_path / "my_clips"), tmp_path / "run"
    (folder / "clips.parquet").unlink()
    (folder / "1.txt").write_text("its own words")
    good = (200, json.dumps(ASPECTS))
    command = ["finetune", str(folder), f"--workdir={run}", "--trigger=sks", "--dry-run"]
    asks = [f"--captioner={server.url}", "--captioner-model=m", "--weights=nowhere"]
    server.answers = [good, (401, "who are you")]
    assert main([*command, *asks]) == 1
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("osjax: "))
    assert f"caption server {server.url} fails (Error code: 401" in line and not (run / "clips" / "clips.csv").exists()
    server.answers = [(400, "against our policy")]
    assert main([*command, *asks]) == 2  # what comes next is missing: the weights
    told = capsys.readouterr()
    assert "2 clips in" in told.out and "2.mp4: the caption server refuses it" in told.out
    made = {"0.mp4": f"sks, {TEXT}", "1.mp4": "sks, its own words", "2.mp4": ""}
    assert words_of(run / "clips" / "clips.csv") == made
    assert len(server.requests) == 3 and all(request["key"] == "Bearer secret" for _, request in server.requests)
    (folder / "notes.txt").write_text("the folder changed, its clips did not")
    server.answers = [good]
    assert main([*command, *asks]) == 2 and len(server.requests) == 4  # what was refused alone is asked again
    assert words_of(run / "clips" / "clips.csv") == {**made, "2.mp4": f"sks, {TEXT}"}


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--captioner=file:///etc/passwd", "--captioner-model=m"], "is not http:// or https://"),
        (["--captioner=http://x/v1"], "--captioner needs --captioner-model"),
        (["--captioner-model=m"], "--captioner-model goes with --captioner"),
        (["--captioner=http://x/v1", "--captioner-model=m", "--caption=a"], "both for clips without a caption"),
    ],
)
def test_half_of_what_a_captioner_takes_is_refused(clips, tmp_path, capsys, argv, says):
    assert main(["finetune", str(clips.parent), f"--workdir={tmp_path}", *argv]) == 2
    assert says in capsys.readouterr().err
