"""Kills a server at random moments and counts what is left of its work.

    python -m tests.measures.serve_kills --kills 50

Each round starts `osjax serve` on the same folder, asks for videos until a moment between 0 and --longest seconds, and
kills the server, start-up included. At last it is left alone: every accepted video must end as completed, and every
video that was finished at any time must have the bytes that it had then.
"""

import argparse
import contextlib
import hashlib
import json
import random
import tempfile
import threading
import time
from pathlib import Path

from tests.sampling import trained
from tests.serve.server import Server


def hashes(server: Server, ids) -> dict[str, str]:
    """The bytes of those videos that are finished."""
    told = {}
    for id in ids:
        status, data = server.ask("GET", f"/v1/videos/{id}/content", raw=True)
        if status == 200:
            told[id] = hashlib.sha256(data).hexdigest()
    return told


def load(server: Server, accepted: list[str], end: threading.Event, rng: random.Random) -> None:
    """Ask for videos, short and long ones, for as long as the server answers."""
    with contextlib.suppress(OSError, AssertionError, ValueError):
        while not end.is_set():
            if len(accepted) < 200 and rng.random() < 0.3:
                accepted.append(server.video("a", steps=rng.choice((1, 50)), frames=rng.choice((8, 64)))["id"])
            time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--longest", type=float, default=8.0, help="seconds of life of a server")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng, folder = random.Random(args.seed), Path(tempfile.mkdtemp(prefix="osjax-kills-"))
    workdir = trained.write(folder / "tiny")
    accepted: list[str] = []
    before: dict[str, str] = {}
    server, began, changed = Server(workdir, folder / "served"), 0, 0
    server.kill()
    for _ in range(args.kills):
        life, started = rng.uniform(0, args.longest), time.monotonic()
        try:
            server.start(life)
        except AssertionError:  # it did not come to serving by the moment of its end
            pass
        else:
            began += 1
            end, rest = threading.Event(), life - (time.monotonic() - started)
            asks = threading.Thread(target=load, args=(server, accepted, end, rng))
            asks.start()
            with contextlib.suppress(OSError, ValueError):
                now = hashes(server, accepted)
                changed += sum(now.get(id) != told for id, told in before.items())
                before |= now
            time.sleep(max(0, rest))
            end.set()
        server.kill()
    server.start(120)
    ends = [server.over(id, 600)["status"] for id in accepted]
    last = hashes(server, accepted)
    changed += sum(last.get(id) != told for id, told in before.items())
    server.stop()
    told = {"kills": args.kills, "of them while it served": began, "accepted": len(accepted)}
    told |= {
        "completed": ends.count("completed"),
        "seen finished before a kill": len(before),
        "changed or lost": changed,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
