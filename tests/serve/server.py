"""A server in a process of its own, on a free port of loopback, with a model of the smallest size."""

import json
import re
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path

from tests.e2e.started import Started


class Server:
    """`osjax serve` of a workdir, with its queue in `folder`; use as a context. flags: more of the command line."""

    def __init__(self, workdir: Path, folder: Path, *flags: str):
        self.folder, self._logs, self._starts = folder, folder.with_name(f"{folder.name}-logs"), 0
        self._command = ["serve", f"--workdir={workdir}", "--port=0", f"--folder={folder}", *flags]
        self.own: dict[str, str] = {}  # headers of every request
        self._command += [] if any("--model" in flag for flag in flags) else ["--config.models.demo.compilation_cache="]
        self.start()

    def start(self, start_s: float = 60) -> None:
        """Start it, or start it again; it must serve after so many seconds."""
        self._starts += 1
        self.process = Started(self._command, self._logs / str(self._starts))
        self.process.until(lambda: "serving" in self.process.stdout, start_s)
        told = re.search(r"http://\S+:(\d+)", self.process.stdout)
        assert told, self.process.stderr
        self.port = int(told[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *error) -> None:
        self.stop()

    def stop(self) -> int:
        """Ask it to end; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.finish(60).poll()

    def kill(self) -> None:
        """End it as the kernel would."""
        self.process.kill()
        self.process.wait(30)

    @property
    def log(self) -> list[dict]:
        """Its log, line by line."""
        return [json.loads(line) for line in self.process.stderr.splitlines() if line.startswith("{")]

    def ask(self, method: str, path: str, body=None, headers=(), raw: bool = False):
        """(status, answer) of a request. body: JSON values, or bytes. raw: the answer as bytes, not as JSON."""
        status, _, data = self.whole(method, path, body, headers)
        return status, data if raw else json.loads(data)

    def whole(self, method: str, path: str, body=None, headers=()):
        """(status, headers, bytes) of a request."""
        headers = {**self.own, **dict(headers)}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers = {"Content-Type": "application/json", **headers}
        request = urllib.request.Request(self.url + path, body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as refused:
            return refused.code, dict(refused.headers), refused.read()

    def video(self, prompt: str = "a red circle", **fields) -> dict:
        """A video that was put into the queue."""
        status, answer = self.ask("POST", "/v1/videos", {"prompt": prompt, **fields})
        assert status == 200, answer
        return answer

    def over(self, id: str, seconds: float = 60) -> dict:
        """A video once it is completed or has failed."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            status, video = self.ask("GET", f"/v1/videos/{id}")
            assert status == 200, video
            if video["status"] in ("completed", "failed"):
                return video
            time.sleep(0.1)
        raise AssertionError(f"{video['status']} after {seconds} s: {self.process.stderr[-2000:]}")

    def until(self, id: str, status: str, seconds: float = 60) -> dict:
        """A video once its status is this one."""
        end = time.monotonic() + seconds
        while (video := self.ask("GET", f"/v1/videos/{id}")[1])["status"] != status:
            assert time.monotonic() < end and video["status"] != "failed", video
            time.sleep(0.05)
        return video
