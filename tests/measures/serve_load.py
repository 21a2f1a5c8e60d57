"""How fast a busy server answers: many videos wait, half of the clients poll, half follow events, while models run.

    python -m tests.measures.serve_load --videos 500 --clients 50 --seconds 120

Prints, of answers that make nothing: how many, their median and 99th percentile in milliseconds; the memory of the two
processes in the middle and at the end; and how busy the machine was.
"""

import argparse
import contextlib
import http.client
import json
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path

from tests.sampling import trained
from tests.serve.server import Server


def memory(process: int) -> int:
    """Megabytes that a process has in memory."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


def poll(server: Server, ids: list[str], end: threading.Event, took: list[float]) -> None:
    line = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    paths = [*(f"/v1/videos/{id}" for id in ids[:8]), "/v1/videos?limit=20", "/v1/models", "/health"]
    n = 0
    while not end.is_set():
        n += 1
        began = time.monotonic()
        line.request("GET", paths[n % len(paths)])
        answer = line.getresponse()
        answer.read()
        assert answer.status == 200
        took.append(time.monotonic() - began)
        time.sleep(0.5)


def follow(server: Server, id: str, end: threading.Event) -> None:
    line = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    with contextlib.suppress(OSError, http.client.HTTPException):
        line.request("GET", f"/v1/videos/{id}/events")
        stream = line.getresponse()
        while not end.is_set() and stream.readline():
            pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=500)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="osjax-load-"))
    end, took, load = threading.Event(), [], os.getloadavg()[0]
    with Server(trained.write(folder / "tiny"), folder / "served") as server:
        server.over(server.video(steps=1)["id"])
        ids = [server.video(f"video {n}", steps=50)["id"] for n in range(args.videos)]
        threads = [
            threading.Thread(target=poll, args=(server, ids[n * 7 :], end, took), daemon=True)
            if n % 2
            else threading.Thread(target=follow, args=(server, ids[n * 9 % len(ids)], end), daemon=True)
            for n in range(args.clients)
        ]
        for thread in threads:
            thread.start()
        models = [line["process"] for line in server.log if line["event"] == "models"][-1]
        processes, sizes = (server.process._process.pid, models), []
        for _ in range(2):
            time.sleep(args.seconds / 2)
            sizes.append([memory(process) for process in processes])
        end.set()
        done = sum(server.ask("GET", f"/v1/videos/{id}")[1]["status"] == "completed" for id in ids)
    told = {"answers": len(took), "p50": statistics.median(took), "p99": statistics.quantiles(took, n=100)[98]}
    told = {key: round(1000 * value, 1) if key != "answers" else value for key, value in told.items()}
    told |= {"MB in the middle": sizes[0], "MB at the end": sizes[1], "videos made": done}
    print(json.dumps({**told, "load before": load, "load after": os.getloadavg()[0]}))


if __name__ == "__main__":
    main()
