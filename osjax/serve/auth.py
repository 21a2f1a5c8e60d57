"""Keys of clients. The file holds a hash of each: who reads it cannot ask for anything."""

import hashlib
import hmac
import json
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from osjax import atomic, json_file
from osjax.errors import UserError

FILE = "keys.json"
PREFIX = "osjax-"


@dataclass(frozen=True)
class Client:
    """Who asks.

    name: of the key; empty where none is needed. queued: videos that may wait; None: the server's limit. priority: the
    highest that it may ask for.
    """

    name: str = ""
    queued: int | None = None
    priority: int = 100


class Keys:
    """The keys in a folder. A change of the file counts from the next request on."""

    def __init__(self, folder: Path):
        self._path, self._stamp, self._rows = folder / FILE, None, []

    def _read(self) -> list[dict]:
        try:
            state = self._path.stat()
        except FileNotFoundError:
            self._rows, self._stamp = [], None
            return self._rows
        stamp = (state.st_mtime_ns, state.st_size, state.st_ino)
        if stamp != self._stamp:
            try:
                rows = json_file.parse(self._path.read_text())["keys"]
                self._rows = [{**row, "salt": str(row["salt"]), "sha256": str(row["sha256"])} for row in rows]
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"{self._path} cannot be read ({error}): mend it, or make the keys anew") from error
            self._stamp = stamp
        return self._rows

    def make(self, name: str, queued: int | None = None, priority: int = 0) -> str:
        """A new key, which is shown this once. UserError for a name that there is.

        name: whose it is. queued: videos that its owner may have waiting. priority: the highest that it may ask for.
        """
        if not name.strip() or len(name) > 100 or not name.isprintable():
            raise UserError("a key needs a name of 1 to 100 characters: --make-key=NAME", status=2)
        rows = self._read()
        if any(row["name"] == name for row in rows):
            raise UserError(
                f"there is a key {name} already: choose another name, or --revoke-key={name} first", status=2
            )
        key, salt = f"{PREFIX}{secrets.token_urlsafe(32)}", secrets.token_hex(16)
        row = {"name": name, "salt": salt, "sha256": _hash(salt, key), "created": int(time.time())}
        self._write([*rows, {**row, "queued": queued, "priority": priority}])
        return key

    def revoke(self, name: str) -> None:
        """Forget the key of this name. UserError where there is none."""
        rows = self._read()
        if not any(row["name"] == name for row in rows):
            raise UserError(f"there is no key {name}: {self._path} names those that there are", status=2)
        self._write([row for row in rows if row["name"] != name])

    def _write(self, rows: list[dict]) -> None:
        with atomic.complete(self._path) as partial:
            partial.touch(mode=0o600)
            partial.write_text(json.dumps({"keys": rows}, indent=2) + "\n")

    def client(self, authorization: str | None) -> Client | None:
        """Whose key a header `Authorization: Bearer KEY` has; None where it is nobody's.

        Every key is looked at, each in constant time, so that an answer's time tells nothing.
        """
        scheme, _, key = (authorization or "").partition(" ")
        match = None
        for row in self._read():
            if hmac.compare_digest(_hash(row["salt"], key.strip()), row["sha256"]):
                match = row
        if match is None or scheme.lower() != "bearer":
            return None
        return Client(match["name"], match.get("queued"), int(match.get("priority", 0)))


def _hash(salt: str, key: str) -> str:
    # 256 bits of chance need no slow hash: nobody goes through them.
    return hashlib.sha256(f"{salt}:{key}".encode("utf-8", "surrogatepass")).hexdigest()
