"""Object stores on this machine: moto's server for S3, gcp-storage-emulator for GCS, and what goes wrong on the way.

The servers are real ones that speak the stores' protocols; a proxy before them refuses, slows and cuts off.
"""

import contextlib
import http.client
import json
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BUCKET = "bucket"
DOWN, BROKEN, SLOW = -1, -2, -3  # the connection is cut; after half an answer; an answer that takes its time
SLOW_S = 0.3
CODES = {403: "AccessDenied", 404: "NoSuchKey", 503: "SlowDown"}
HOP = {"connection", "transfer-encoding", "keep-alive"}


class Store:
    """A store behind a proxy.

    fault: asked (method, path) of every request; a status to answer, one of DOWN, BROKEN and SLOW, or None to let it
    pass. seen: (method, path) of all requests.
    """

    def __init__(self, upstream: tuple[str, int]):
        self.upstream, self.fault, self.seen = upstream, None, []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.handle_error = lambda *_: None  # clients that were killed
        self._server.daemon_threads, self._server.store = True, self
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    fault: Callable[[str, str], int | None] | None
    seen: list[tuple[str, str]]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @contextlib.contextmanager
    def failing(self, fault: Callable[[str, str], int | None]) -> Iterator[None]:
        """A block in which requests come to what `fault` says."""
        self.fault = fault
        try:
            yield
        finally:
            self.fault = None

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _answer(self):
        store: Store = self.server.store
        store.seen.append((self.command, self.path))
        wrong = store.fault(self.command, self.path) if store.fault else None
        if wrong == DOWN:
            return self._cut()
        body = self._body()
        if wrong is not None and wrong > 0:
            text = f"<Error><Code>{CODES[wrong]}</Code></Error>"
            return self._reply(wrong, [("Content-Type", "application/xml")], text.encode())
        status, headers, answer = self._forward(body)
        if wrong == SLOW:
            time.sleep(SLOW_S)
        self._reply(status, headers, answer, cut=wrong == BROKEN and len(answer) > 1)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_PATCH = _answer

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _forward(self, body: bytes):
        upstream = http.client.HTTPConnection(*self.server.store.upstream, timeout=30)
        try:
            headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP | {"expect", "content-length"}}
            upstream.request(self.command, self.path, body, {**headers, "Content-Length": str(len(body))})
            answer = upstream.getresponse()
            status, given, content = answer.status, answer.getheaders(), answer.read()
            if "alt=media" in self.path and status in (200, 206):
                # TensorStore asks for it, GCS tells it, and the emulator only in an object's description.
                about = self.path.split("?")[0].removeprefix("/download")
                upstream.request("GET", about)
                given.append(("x-goog-generation", json.loads(upstream.getresponse().read())["generation"]))
            return status, given, content
        finally:
            upstream.close()

    def _reply(self, status: int, headers, answer: bytes, cut: bool = False) -> None:
        self.send_response_only(status)
        length = next((v for k, v in headers if k.lower() == "content-length"), str(len(answer)))
        for name, value in headers:
            if name.lower() not in HOP | {"content-length"}:
                self.send_header(name, value)
        self.send_header("Content-Length", length if self.command == "HEAD" else str(len(answer)))
        self.end_headers()
        if self.command == "HEAD":
            return
        with contextlib.suppress(OSError):  # a client that was killed
            self.wfile.write(answer[: len(answer) // 2] if cut else answer)
        if cut:
            self._cut()

    def _cut(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()


@contextlib.contextmanager
def s3() -> Iterator[tuple[Store, dict[str, str]]]:
    """An S3 with a bucket: (it, the environment in which clients find it)."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for every request
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    store = Store(server.get_host_and_port())
    given = {"ENDPOINT_URL": store.address, "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}
    try:
        http_put(store, f"/{BUCKET}")
        yield store, {f"AWS_{name}": value for name, value in {**given, "DEFAULT_REGION": "us-east-1"}.items()}
    finally:
        store.close()
        server.stop()


@contextlib.contextmanager
def gcs() -> Iterator[tuple[Store, dict[str, str]]]:
    """A GCS with a bucket: (it, the environment in which fsspec and TensorStore find it)."""
    from gcp_storage_emulator.server import create_server

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket=BUCKET)
    server.start()
    store = Store(("127.0.0.1", port))
    try:
        yield (
            store,
            {
                "STORAGE_EMULATOR_HOST": store.address,
                "TENSORSTORE_GCS_HTTP_URL": store.address,
                "GOOGLE_CLOUD_PROJECT": "project",
                "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # asks an API that the emulator has not
            },
        )
    finally:
        store.close()
        server.stop()


def http_put(store: Store, path: str) -> None:
    """A PUT without a body."""
    asked = http.client.HTTPConnection(*store.upstream, timeout=30)
    asked.request("PUT", path)
    assert asked.getresponse().status == 200
    asked.close()
