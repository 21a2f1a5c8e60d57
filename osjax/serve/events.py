"""Progress as server-sent events: what a video's answer says, whenever it changes, and a preview beside it."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable

from osjax.serve.live import Board
from osjax.serve.schema import VideoAnswer

BEAT_S = 15.0  # between signs of life, where nothing changes
LEAST_S = 0.2  # between two events of a stream


def event(name: str, data: object) -> bytes:
    """One event, as the text of a stream. name: its kind. data: JSON values."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


async def of_video(board: Board, id: str, answer: Callable[[], VideoAnswer | None]) -> AsyncIterator[bytes]:
    """The stream of one video, until it is over, deleted, or the server ends.

    board: tells of changes. id: of the video. answer: what it is by now, None where it is gone.
    """
    last, pictured = None, 0
    with board.follow(id) as changed:
        while True:
            changed.clear()
            now = answer()
            if now is None:
                yield event("deleted", {"id": id})
                return
            live = board.get(id)
            told = now.model_dump(exclude={"settings"})
            if live is not None and live.preview is not None and live.number != pictured:
                pictured = live.number
                told["preview"] = "data:image/png;base64," + base64.b64encode(live.preview).decode()
            if told != last:
                last = {key: value for key, value in told.items() if key != "preview"}
                yield event(now.status, told)
            if now.status in ("completed", "failed") or board.closed:
                return
            if not await _waited(changed):
                yield b": still here\n\n"
            await asyncio.sleep(LEAST_S)


async def of_all(board: Board, answers: Callable[[], Awaitable[list[VideoAnswer]]]) -> AsyncIterator[bytes]:
    """The stream of a client's videos: each when it changes, until the server ends.

    board: tells of changes. answers: the newest ones, as they are by now.
    """
    last: dict[str, dict] = {}
    with board.follow() as changed:
        while True:
            changed.clear()
            now = {answer.id: answer for answer in await answers()}
            for id, answer in now.items():
                told, live = answer.model_dump(), board.get(id)
                stamp = {**told, "number": live.number if live else 0}
                if stamp != last.get(id):
                    if live is not None and live.preview is not None:
                        told["preview"] = "data:image/png;base64," + base64.b64encode(live.preview).decode()
                    yield event("video", told)
                    last[id] = stamp
            for id in last.keys() - now.keys():
                del last[id]
                yield event("gone", {"id": id})
            if board.closed:
                return
            if not await _waited(changed):
                yield b": still here\n\n"
            await asyncio.sleep(LEAST_S)


async def _waited(changed: asyncio.Event) -> bool:
    try:
        async with asyncio.timeout(BEAT_S):
            await changed.wait()
    except TimeoutError:
        return False
    return True
