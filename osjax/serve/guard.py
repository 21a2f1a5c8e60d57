"""What every request passes before it reaches a route: is it for us, is it bounded, who asks; and its line in the log.

A page of any site can send requests to a server on the reader's own machine. So the name by which this server is asked
(Host) must be one of its own, which a name that was bound anew to 127.0.0.1 is not, and a page that asks (Origin) must
be this server's.
"""

import asyncio
import base64
import hashlib
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from osjax.errors import UserError
from osjax.pages import page
from osjax.serve import bodies
from osjax.serve.answers import error, is_full
from osjax.serve.auth import Client, Keys
from osjax.serve.metrics import Metrics
from osjax.serve.options import ServerOptions

Message = MutableMapping[str, Any]
Receive, Send = Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]
log = logging.getLogger("osjax.serve.requests")
OPEN = ("/health", "/ready", "/", "/studio/")  # that need no key: whether it lives, and the studio's own files
STYLE = base64.b64encode(hashlib.sha256(page.STYLE.encode()).digest())  # the one style that stands inside a page
HEADER_BYTES = 32768  # of a request; the reader of HTTP has the same limit, and forgets it for what comes at once
HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"x-frame-options": b"DENY",
    b"cross-origin-resource-policy": b"same-origin",
    b"content-security-policy": b"default-src 'self'; style-src 'self' 'sha256-"
    + STYLE
    + b"'; img-src 'self' blob: data:; media-src 'self' blob:; "
    b"frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
}


class TooLarge(Exception):
    """A body that is longer than the limit."""


class TooSlow(Exception):
    """A body that takes longer than the limit."""


@dataclass
class _Told:
    """What the log says of a request."""

    began: float = field(default_factory=time.monotonic)
    status: int = 0
    sent: int = 0
    key: str = ""
    latency: float | None = None


class Guard:
    """An ASGI application around another one.

    app: the one inside. options: of the server. keys, metrics: of the server.
    """

    def __init__(self, app, options: ServerOptions, keys: Keys, metrics: Metrics):
        self._app, self._options, self._keys, self._metrics = app, options, keys, metrics
        self._files = (2 * options.limits.upload_mb + 1) << 20  # two references and words, which are kept on the disk
        self._words = options.limits.json_mb << 20  # what is read whole
        self.port = options.port

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI has it."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
                return
            await self._app(scope, receive, send)
            return
        told, id = _Told(), secrets.token_hex(8)

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                told.status, told.latency = message["status"], time.monotonic() - told.began
                own = [(name, value) for name, value in HEADERS.items()] + [(b"x-request-id", id.encode())]
                message = {**message, "headers": [*message.get("headers", ()), *own]}
            else:
                told.sent += len(message.get("body", b""))
            await send(message)

        try:
            most = self._most(scope)
            await self._serve(scope, self._bounded(receive, most), sent, told, most)
        except (TooLarge, TooSlow) as problem:
            status, words = (413, "is too large") if isinstance(problem, TooLarge) else (408, "came too slowly")
            if not told.status:
                await error(status, f"the body {words}: {problem}")(scope, receive, sent)
        except Exception as problem:
            if told.status:
                log.exception("an answer was cut off")
            elif is_full(problem):
                await error(507, "no space is left on the disk of the server", "disk_full")(scope, receive, sent)
            else:
                log.exception("a request failed")
                await error(500, "the server failed: its log says why", "server_error")(scope, receive, sent)
        finally:
            self._tell(scope, told, id)

    def _most(self, scope: Message) -> int:
        """Bytes that the body of a request may have."""
        kind = next((value for name, value in scope["headers"] if name.lower() == b"content-type"), b"")
        kept = kind.lower().startswith(b"multipart/form-data") or scope["path"] == bodies.SETTINGS
        return self._files if kept else self._words

    def _bounded(self, receive: Receive, most: int) -> Receive:
        taken, limits = 0, self._options.limits
        until = time.monotonic() + limits.body_s
        whole = False

        async def bounded() -> Message:
            nonlocal taken, whole
            if whole:  # from here on the other side can only go away
                return await receive()
            try:
                async with asyncio.timeout(max(0.0, until - time.monotonic())):
                    message = await receive()
            except TimeoutError as late:
                raise TooSlow(f"it must arrive within {limits.body_s:g} s") from late
            taken += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if taken > most:
                raise TooLarge(f"{most} bytes at most are read, more in a form alone")
            return message

        return bounded

    async def _serve(self, scope: Message, receive: Receive, send: Send, told: _Told, most: int) -> None:
        if sum(len(name) + len(value) for name, value in scope["headers"]) > HEADER_BYTES:
            await error(431, "the headers are too long: shorten them")(scope, receive, send)
            return
        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            text = name.decode("latin-1").lower()
            if text in headers and text in ("host", "authorization", "origin", "content-length"):
                await error(400, f"the header {text} comes twice: send it once")(scope, receive, send)
                return
            headers[text] = value.decode("latin-1")
        if problem := self._foreign(scope, headers):
            await error(403, problem, "foreign")(scope, receive, send)
            return
        length = headers.get("content-length", "0")
        if length.isascii() and length.isdigit() and (len(length) > 15 or int(length) > most):
            raise TooLarge(f"{most} bytes at most are read, more in a form alone")
        client: Client | None = Client()
        if self._options.needs_key and not self._is_open(scope):
            try:
                client = self._keys.client(headers.get("authorization"))
            except UserError as problem:
                log.error("%s", problem)
                client = None
            if client is None:
                await error(401, "a key is needed: send it as `Authorization: Bearer KEY`", "invalid_api_key")(
                    scope, receive, send
                )
                return
            told.key = client.name
        scope["state"] = {**scope.get("state", {}), "client": client}
        await self._app(scope, receive, send)

    def _is_open(self, scope: Message) -> bool:
        path = scope["path"]
        return path in OPEN or (path.startswith("/studio/") and scope["method"] == "GET")

    def _foreign(self, scope: Message, headers: dict[str, str]) -> str | None:
        """What is wrong with who asks by which name."""
        host = headers.get("host", "").lower()
        if not self._knows(host):
            return f"this server is not known as {host[:100]!r}: use its own address"
        origin = headers.get("origin")
        if origin is not None and origin.lower().split("://")[-1] != host:
            return "a page of another site asks: this server answers its own alone"
        if origin is None and headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return "a page of another site asks: this server answers its own alone"
        return None

    def _knows(self, host: str) -> bool:
        if host in {name.lower() for name in self._options.hosts}:
            return True
        if not self._options.is_loopback:
            # Whoever is asked by another name still wants a key, which no page of another site has.
            return bool(host)
        names = ("127.0.0.1", "localhost", "[::1]", self._options.host, f"[{self._options.host}]")
        return host in {f"{name}:{self.port}" for name in names} | (set(names) if self.port == 80 else set())

    def _tell(self, scope: Message, told: _Told, id: str) -> None:
        route = getattr(scope.get("route"), "path", None) or (
            "/studio" if scope["path"].startswith("/studio/") else "other"
        )
        known = scope["method"] if scope["method"] in ("GET", "POST", "DELETE", "HEAD", "OPTIONS") else "other"
        self._metrics.requests.labels(known, route, str(told.status)).inc()
        if told.latency is not None:
            self._metrics.latency.labels(route).observe(told.latency)
        line = {
            "request": id,
            "client": (scope.get("client") or ("",))[0],
            "key": told.key,
            "method": scope["method"][:16],
            "path": scope["path"][:200],
            "status": told.status,
            "ms": round(1000 * (time.monotonic() - told.began), 1),
            "bytes": told.sent,
        }
        log.info("request", extra={"told": line})


class Lines(logging.Formatter):
    """Log records as JSON, a line each, whatever a client put into them."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{when}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "event": record.getMessage()[:2000],
        }
        line |= getattr(record, "told", {})
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)[-4000:]
        return json.dumps(line)
