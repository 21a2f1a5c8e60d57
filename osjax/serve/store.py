"""The truth about all videos: one SQLite database beside their files. What it says happened is on disk.

Every change is a transaction that is synced before it is answered; readers never wait for it (WAL). A video is
completed only after its files are. A server that was killed finds its queue here, and what ran waits again.
"""

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from osjax.types import Json

QUEUED, RUNNING, COMPLETED, FAILED = "queued", "in_progress", "completed", "failed"
FILE = "videos.sqlite"
SCHEMA = """
CREATE TABLE IF NOT EXISTS videos (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    status TEXT NOT NULL,
    priority INTEGER NOT NULL,
    model TEXT NOT NULL,
    prompt TEXT NOT NULL,
    settings TEXT NOT NULL,
    shown TEXT NOT NULL,
    together TEXT NOT NULL,
    references_count INTEGER NOT NULL,
    remixed_from TEXT,
    created REAL NOT NULL,
    started REAL,
    ended REAL,
    attempts INTEGER NOT NULL DEFAULT 0,
    cancelled INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    error_code TEXT,
    error_message TEXT,
    idempotency_key TEXT,
    request_hash TEXT,
    UNIQUE (owner, idempotency_key)
);
CREATE INDEX IF NOT EXISTS by_status ON videos (status, priority DESC, seq);
CREATE INDEX IF NOT EXISTS by_owner ON videos (owner, seq);
"""


def variant(model: str, lora: str | None) -> str:
    """The name of a model with adapters. model: its name, which has no slash. lora: the adapters' name, if any."""
    return f"{model}/{lora}" if lora else model


@dataclass(frozen=True)
class Video:
    """A row: one video that was asked for.

    seq: its place in time. owner: the name of the key that asked; empty without keys. settings: fields of
    SampleSettings. shown: what its answer says besides, such as its size. together: videos of the same text may be made
    in one go. references_count: files that were given with it. cancelled: whether somebody wants it stopped.
    """

    seq: int
    id: str
    owner: str
    status: str
    priority: int
    model: str
    prompt: str
    settings: Json
    shown: Json
    together: str
    references_count: int
    remixed_from: str | None
    created: float
    started: float | None = None
    ended: float | None = None
    attempts: int = 0
    cancelled: bool = False
    bytes: int = 0
    error_code: str | None = None
    error_message: str | None = None
    idempotency_key: str | None = None
    request_hash: str | None = None

    @property
    def variant(self) -> str:
        """The name of its model with its adapters, as the process of the models knows it."""
        return variant(self.model, self.shown.get("lora"))

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status in (COMPLETED, FAILED)


class Store:
    """The database in `folder`. Methods may be called from several threads."""

    def __init__(self, folder: Path):
        self._path, self._writing, self._local = folder / FILE, threading.Lock(), threading.local()
        self._all: list[sqlite3.Connection] = []
        self._changes, self._places = 0, (-1, {})
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = self._connect()
        self._writer.execute("PRAGMA journal_mode = WAL")
        self._writer.executescript(SCHEMA)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=30, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA synchronous = FULL")
        self._all.append(connection)
        return connection

    def close(self) -> None:
        """Close all connections."""
        for connection in self._all:
            connection.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._writing:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
                self._changes += 1
            except BaseException:
                if self._writer.in_transaction:  # a full disk has rolled it back already
                    self._writer.execute("ROLLBACK")
                raise

    def _rows(self, query: str, *values: object) -> list[sqlite3.Row]:
        if not hasattr(self._local, "connection"):
            self._local.connection = self._connect()
        return self._local.connection.execute(query, values).fetchall()

    def add(self, video: Video, queued: int, queued_per_owner: int) -> tuple[Video, bool]:
        """Put a video into the queue; (its row, whether it is new).

        video: its `seq` and status are set here. A row of the same owner and idempotency key is given back as it is.
        queued, queued_per_owner: the most that may wait. OverflowError, with whose limit it is, where too many do.
        """
        columns = {k: v for k, v in vars(video).items() if k != "seq"} | {"status": QUEUED}
        columns |= {"settings": json.dumps(video.settings), "shown": json.dumps(video.shown)}
        with self._transaction() as db:
            if video.idempotency_key is not None:
                pair = (video.owner, video.idempotency_key)
                row = db.execute("SELECT * FROM videos WHERE owner = ? AND idempotency_key = ?", pair).fetchone()
                if row is not None:
                    return _video(row), False
            for whose, limit, clause, values in (
                ("server", queued, "", ()),
                ("key", queued_per_owner, " AND owner = ?", (video.owner,)),
            ):
                count = f"SELECT COUNT(*) FROM videos WHERE status IN ('queued', 'in_progress'){clause}"
                if db.execute(count, values).fetchone()[0] >= limit:
                    raise OverflowError(whose)
            names = ", ".join(columns)
            marks = ", ".join("?" * len(columns))
            db.execute(f"INSERT INTO videos ({names}) VALUES ({marks})", tuple(columns.values()))
            return _video(db.execute("SELECT * FROM videos WHERE id = ?", (video.id,)).fetchone()), True

    def get(self, id: str, owner: str | None = None) -> Video | None:
        """The video of this id, of this owner where one is given; None where there is none."""
        if owner is None:
            rows = self._rows("SELECT * FROM videos WHERE id = ?", id)
        else:
            rows = self._rows("SELECT * FROM videos WHERE id = ? AND owner = ?", id, owner)
        return _video(rows[0]) if rows else None

    def of_key(self, owner: str, idempotency_key: str) -> Video | None:
        """The video that an owner asked for under an idempotency key."""
        query = "SELECT * FROM videos WHERE owner = ? AND idempotency_key = ?"
        rows = self._rows(query, owner, idempotency_key)
        return _video(rows[0]) if rows else None

    def page(self, owner: str, after: int | None, limit: int, newest_first: bool, search: str = "") -> list[Video]:
        """Videos of an owner, from the one behind the row number `after` on, `limit` at most.

        newest_first: in order of time, or the other way. search: a part of their prompts.
        """
        sign, order = ("<", "DESC") if newest_first else (">", "ASC")
        query, values = "SELECT * FROM videos WHERE owner = ?", [owner]
        if after is not None:
            query, values = f"{query} AND seq {sign} ?", [*values, after]
        if search:
            query, values = f"{query} AND instr(lower(prompt), lower(?)) > 0", [*values, search]
        return [_video(row) for row in self._rows(f"{query} ORDER BY seq {order} LIMIT ?", *values, limit)]

    def waiting(self) -> list[Video]:
        """The queue, in the order in which it is worked off."""
        query = "SELECT * FROM videos WHERE status = 'queued' ORDER BY priority DESC, seq"
        return [_video(row) for row in self._rows(query)]

    def places(self) -> dict[str, int]:
        """The place in the queue by the id of a video, 1 for the next one. It is for reading."""
        changes, places = self._places
        if changes != self._changes:  # nobody but this process writes
            changes = self._changes  # ahead of the rows, which may be newer than it
            places = {row[0]: n + 1 for n, row in enumerate(self._rows(_IDS))}
            self._places = changes, places
        return places

    def counts(self) -> dict[str, int]:
        """How many videos there are of each status."""
        return {row[0]: row[1] for row in self._rows("SELECT status, COUNT(*) FROM videos GROUP BY status")}

    def start(self, most: int) -> list[Video]:
        """Take the next videos out of the queue that may be made together, `most` at most; they run from now on."""
        with self._transaction() as db:
            first = db.execute(f"{_NEXT} LIMIT 1").fetchone()
            if first is None:
                return []
            query = "SELECT * FROM videos WHERE status = 'queued' AND together = ? ORDER BY priority DESC, seq LIMIT ?"
            ids = [row["id"] for row in db.execute(query, (first["together"], most)).fetchall()]
            change = "UPDATE videos SET status = 'in_progress', started = ?, attempts = attempts + 1 WHERE id = ?"
            db.executemany(change, [(time.time(), id) for id in ids])
            marks = ", ".join("?" * len(ids))
            rows = db.execute(f"SELECT * FROM videos WHERE id IN ({marks}) ORDER BY priority DESC, seq", ids)
            return [_video(row) for row in rows.fetchall()]

    def complete(self, id: str, size: int) -> None:
        """Say that the files of a video, of so many bytes, are on disk."""
        change = "UPDATE videos SET status = 'completed', ended = ?, bytes = ? WHERE id = ? AND status = 'in_progress'"
        with self._transaction() as db:
            db.execute(change, (time.time(), size, id))

    def fail(self, id: str, code: str, message: str) -> None:
        """Say that a video, of this id, will not be. code: a word for programs. message: a line for people."""
        change = (
            "UPDATE videos SET status = 'failed', ended = ?, error_code = ?, error_message = ? WHERE id = ? AND "
            "status IN ('queued', 'in_progress')"
        )
        with self._transaction() as db:
            db.execute(change, (time.time(), code, message[:1000], id))

    def cancel(self, id: str) -> None:
        """Want a video stopped: one that waits fails at once, one that runs is marked."""
        with self._transaction() as db:
            queued = (
                "UPDATE videos SET status = 'failed', ended = ?, error_code = 'cancelled', "
                "error_message = 'cancelled before it began' WHERE id = ? AND status = 'queued'"
            )
            db.execute(queued, (time.time(), id))
            db.execute("UPDATE videos SET cancelled = 1 WHERE id = ? AND status = 'in_progress'", (id,))

    def again(self, id: str) -> None:
        """Put a video that ran back into the queue, at its old place."""
        with self._transaction() as db:
            db.execute(
                "UPDATE videos SET status = 'queued', started = NULL WHERE id = ? AND status = 'in_progress'", (id,)
            )

    def recover(self) -> int:
        """Put back into the queue what ran when the server ended; how many. Cancelled ones fail."""
        with self._transaction() as db:
            gone = (
                "UPDATE videos SET status = 'failed', ended = ?, error_code = 'cancelled', error_message = "
                "'cancelled' WHERE status = 'in_progress' AND cancelled = 1"
            )
            db.execute(gone, (time.time(),))
            return db.execute(
                "UPDATE videos SET status = 'queued', started = NULL WHERE status = 'in_progress'"
            ).rowcount

    def delete(self, id: str) -> None:
        """Forget a video."""
        with self._transaction() as db:
            db.execute("DELETE FROM videos WHERE id = ?", (id,))

    def over(self) -> list[Video]:
        """All videos to which nothing more happens, those that ended first ahead."""
        return [
            _video(r) for r in self._rows("SELECT * FROM videos WHERE status IN ('completed', 'failed') ORDER BY ended")
        ]

    def ids(self) -> set[str]:
        """The ids of all videos."""
        return {row[0] for row in self._rows("SELECT id FROM videos")}


_NEXT = "SELECT * FROM videos WHERE status = 'queued' ORDER BY priority DESC, seq"
_IDS = "SELECT id FROM videos WHERE status = 'queued' ORDER BY priority DESC, seq"


def _video(row: sqlite3.Row) -> Video:
    values = dict(row)
    values["settings"], values["shown"] = json.loads(values["settings"]), json.loads(values["shown"])
    return Video(**{**values, "cancelled": bool(values["cancelled"])})
