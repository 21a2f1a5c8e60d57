"""Requests as strangers send them, and what an answer of 400 and above must have."""


def form(*parts: tuple[str, str | None, bytes], boundary: str = "xyz") -> tuple[bytes, dict]:
    """(body, headers) of a form. parts: (name, file name or None, content)."""
    body = b""
    for name, file, content in parts:
        named = f'; filename="{file}"' if file else ""
        body += (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode() + content + b"\r\n"
        )
    return body + f"--{boundary}--\r\n".encode(), {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def upload(server, data: bytes, *more, **headers):
    body, kind = form(("prompt", None, b"a"), ("steps", None, b"1"), ("input_reference", "x", data), *more)
    return server.ask("POST", "/v1/videos", body, {**kind, **headers})


def refused(answer, *status) -> str:
    code, body = answer
    assert code in status, answer
    assert (
        "error" in body and set(body["error"]) == {"message", "type", "param", "code"} and body["error"]["message"]
    ), body
    return body["error"]["message"]
