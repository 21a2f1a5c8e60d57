"""What strangers send, and what they get: nothing that they should not have, and a reason."""

import io
import json
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from osjax.data import video
from tests.serve.asked import form, refused, upload


def raw(server, data: bytes, seconds: float = 20) -> bytes:
    """What comes back for some bytes on the wire."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=seconds) as line:
        line.sendall(data)
        line.shutdown(socket.SHUT_WR)
        parts = []
        while part := line.recv(65536):
            parts.append(part)
        return b"".join(parts)


def test_pages_of_other_sites_and_other_names_get_nothing(server):
    for headers in (
        {"Host": "evil.example"},
        {"Host": f"evil.example:{server.port}"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": f"127.0.0.1:{server.port + 1}"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": f"http://127.0.0.1:{server.port + 1}"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        assert "site" in (said := refused(server.ask("GET", "/v1/videos", headers=headers), 403)) or "known" in said
        refused(server.ask("POST", "/v1/videos", {"prompt": "a"}, headers), 403)
    for headers in ({"Host": f"localhost:{server.port}"}, {"Origin": server.url}, {"Sec-Fetch-Site": "same-origin"}):
        status, told, _ = server.whole("GET", "/v1/videos", headers=headers)
        assert status == 200 and not any(name.lower().startswith("access-control") for name in told)
    assert server.whole("OPTIONS", "/v1/videos", headers={"Access-Control-Request-Method": "POST"})[0] == 405


def test_what_is_no_request_gets_a_reason(server):
    post = "/v1/videos"
    json_type, form_type = {"Content-Type": "application/json"}, {"Content-Type": "multipart/form-data"}
    for body, headers in (
        (b"", json_type),
        (b"{", json_type),
        (b"[1]", json_type),
        (b"\xff\xfe", json_type),
        (b'{"prompt": NaN}', json_type),
        (b'{"prompt": "a", "seconds": NaN}', json_type),
        (b'{"prompt": "a", "steps": 1e400}', json_type),
        (b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}", json_type),
        (b"[" * 100_000, json_type),
        (b'{"a":' * 50_000, json_type),
        (b"abc", form_type),
        (b"abc", {"Content-Type": "multipart/form-data; boundary=" + "x" * 300}),
        (b"--x\r\n\r\n\r\n--x--", {"Content-Type": "multipart/form-data; boundary=x"}),
        (
            b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--",
            {"Content-Type": "multipart/form-data; boundary=x"},
        ),
        form(("prompt", None, b"a"), ("prompt", None, b"b")),
        form(*[(f"field{n}", None, b"a") for n in range(100)]),
        form(*[("input_reference", f"{n}.png", b"a") for n in range(5)]),
        form(("prompt", None, b"a"), ("../../etc/passwd", "../../etc/passwd", b"a")),
        (b"a=b", {"Content-Type": "text/plain"}),
        (b"prompt=a&banana=1", {"Content-Type": "application/x-www-form-urlencoded"}),
    ):
        refused(server.ask("POST", post, body, headers), 400, 415)
    for path in (
        "/v1/videos/../../etc/passwd",
        "/v1/videos/%2e%2e%2fkeys.json",
        "/v1/videos/x/content",
        "/keys.json",
        "/studio/../app.py",
        "/studio/%2e%2e/app.py",
        "/v1/videos/" + "a" * 5000,
        "/v1/videos/%00",
        "//etc/passwd",
        "/v1/models/%ff",
    ):
        refused(server.ask("GET", path), 400, 404)
    refused(server.ask("PUT", "/v1/videos", {"prompt": "a"}), 405)
    assert server.ask("GET", "/health")[0] == 200


def test_lines_that_are_no_http_end_and_hurt_nobody(server):
    host = f"Host: 127.0.0.1:{server.port}\r\n".encode()
    for data in (
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n" + host + b"\r\n",
        b"GET /health HTTP/1.1\r\n" + host + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\n" + host + host + b"\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",
        b"POST /v1/videos HTTP/1.1\r\n" + host + b"Content-Length: -1\r\n\r\n",
        b"POST /v1/videos HTTP/1.1\r\n" + host + b"Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\nzz",
        b"POST /v1/videos HTTP/1.1\r\n" + host + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/videos HTTP/1.1\r\n" + host + b"Content-Length: 100\r\n\r\n{",
    ):
        answer = raw(server, data)
        assert not answer or b" 4" in answer.split(b"\r\n")[0], answer[:200]
    said = raw(server, b"POST /v1/videos HTTP/1.1\r\n" + host + b"Content-Length: 99999999999\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 413")
    assert server.ask("GET", "/health")[0] == 200 and "Traceback" not in server.process.stderr


def bomb() -> bytes:
    """A PNG of 60000 x 60000 pixels in a few bytes."""
    file = io.BytesIO()
    Image.new("1", (8, 8)).save(file, "PNG")
    data = bytearray(file.getvalue())
    data[16:24] = struct.pack(">II", 60000, 60000)
    import zlib

    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data)


def uploads(tmp_path):
    clip = tmp_path / "clip.mp4"
    video.write_mp4(clip, np.zeros((8, 32, 32, 3), np.uint8), 8)
    data = clip.read_bytes()
    yield "nothing", b""
    yield "text", b"hello"
    yield "a list of files", b"ffconcat version 1.0\nfile '/etc/passwd'\n"
    yield "a playlist", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
    yield "svg", b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>"
    yield "a bomb", bomb()
    yield "a cut video", data[: len(data) // 3]
    yield "a pickle", b"\x80\x04\x95\x0c\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94."
    rng = np.random.RandomState(0)
    for n in range(8):
        damaged = bytearray(data)
        for at in rng.randint(0, len(data), 12):
            damaged[at] = rng.randint(256)
        yield f"damage {n}", bytes(damaged)


def test_a_file_is_kept_on_the_disk_and_not_in_memory(server):
    path = f"/proc/{server.process._process.pid}/status"

    def most() -> int:
        return next(int(line.split()[1]) for line in open(path) if line.startswith("VmHWM")) >> 10

    refused(upload(server, bytes(1000)), 400)
    before = most()
    with ThreadPoolExecutor(4) as threads:
        for answer in threads.map(lambda _: upload(server, bytes(30 << 20)), range(4)):
            refused(answer, 400)
    assert most() - before < 60  # MB, of 120 that came
    host = f"Host: 127.0.0.1:{server.port}\r\n".encode()
    said = raw(server, b"POST /v1/videos HTTP/1.1\r\n" + host + b"Content-Length: 9000000\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 413") and b"in a form" in said
    status, answer = server.ask("POST", "/v1/videos/settings", bytes(20 << 20))
    assert status == 400 and answer["error"]["message"]
    assert list((server.folder / "uploads").iterdir()) == []


def test_files_that_are_none_are_refused_within_seconds(server, tmp_path):
    for what, data in uploads(tmp_path):
        started = time.monotonic()
        status, answer = upload(server, data)
        assert status == 200 or refused((status, answer), 400), what
        assert str(server.folder) not in json.dumps(answer) and time.monotonic() - started < 30, what
        if not what.startswith("damage"):
            assert status == 400, what
    assert list((server.folder / "uploads").iterdir()) == []  # nothing of them stays
    short = io.BytesIO()
    Image.new("RGB", (32, 32)).save(short, "PNG")
    said = refused(upload(server, short.getvalue(), ("mode", None, b"v2v_head"), ("frames", None, b"64")), 400)
    assert "needs 32 frames" in said


def test_a_line_of_the_log_is_one_line_whatever_is_asked_for(server):
    server.ask("GET", '/x%0a{"event":"request","path":"/forged"}')
    server.process.until(lambda: any("forged" in json.dumps(line) for line in server.log), 10)
    assert not any(line.get("path") == "/forged" for line in server.log)
    assert all(line.startswith("{") for line in server.process.stderr.splitlines())
