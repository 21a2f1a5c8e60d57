"""Errors as OpenAI's clients read them, and videos as answers."""

import sqlite3
from http import HTTPStatus

from fastapi.responses import JSONResponse

from osjax import atomic
from osjax.serve.live import Live
from osjax.serve.schema import ErrorAnswer, ErrorBody, VideoAnswer, VideoError
from osjax.serve.store import COMPLETED, RUNNING, Video

TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error", 507: "insufficient_storage"}


class Refused(Exception):
    """An answer of 400 and above. status: of HTTP. message: one line. code: a word for programs. param: the field."""

    def __init__(self, status: int, message: str, code: str | None = None, param: str | None = None):
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param


def error(status: int, message: str, code: str | None = None, param: str | None = None) -> JSONResponse:
    """The answer that says what is wrong. status, message, code, param: see `Refused`."""
    kind = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    message = " ".join(message.split())[:1000] or HTTPStatus(status).phrase
    body = ErrorAnswer(error=ErrorBody(message=message, type=kind, param=param, code=code))
    headers = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "10"}}.get(status)
    return JSONResponse(body.model_dump(), status, headers)


def is_full(problem: BaseException) -> bool:
    """Whether an error says that the disk is full; SQLite says it in its own way."""
    full = isinstance(problem, sqlite3.OperationalError) and "full" in str(problem)
    return full or atomic.is_full_disk(problem)


def steps(row: Video) -> int:
    """The steps of a video, of all its windows where it makes another one longer."""
    return row.settings["steps"] * len(row.shown.get("longer", {}).get("seams", "1"))


def video(row: Video, live: Live | None, place: int | None, days: float, siblings: tuple[str, ...] = ()) -> VideoAnswer:
    """A video as its answer.

    row: of the store. live: what is known of it while it runs. place: in the queue. days: that it stays.
    siblings: ids of what was asked for together with it.
    """
    settings = row.settings
    running = live if row.status == RUNNING else None
    progress = 100 if row.status == COMPLETED else 0
    if running is not None and running.steps:
        progress = min(99, 100 * running.step // running.steps)
    longer = row.shown.get("longer", {})
    failed = row.error_code is not None
    return VideoAnswer(
        id=row.id,
        model=row.model,
        status=row.status,
        progress=progress,
        created_at=int(row.created),
        completed_at=int(row.ended) if row.status == COMPLETED and row.ended else None,
        expires_at=int(row.ended + 86400 * days) if row.status == COMPLETED and row.ended else None,
        prompt=row.prompt,
        seconds=row.shown["seconds"],
        size=row.shown["size"],
        error=VideoError(code=row.error_code, message=row.error_message or "") if failed else None,
        remixed_from_video_id=row.remixed_from,
        mode=settings["mode"],
        frames=longer.get("frames", settings["frames"]),
        seed=settings["seed"],
        place=place,
        step=running.step if running else None,
        steps=steps(row),
        seconds_left=live.seconds_left if live is not None and not row.is_over else None,
        priority=row.priority,
        siblings=list(siblings),
        lora=row.shown.get("lora"),
        asked_prompt=row.shown.get("asked_prompt"),
        seams=[frame / settings["fps"] for frame in longer.get("seams", ())],
        longer_of=longer.get("of"),
        settings=settings,
    )
