"""Runs of `osjax train` that are killed at random moments, and what is left of them.

`python -m tests.e2e.faults 200` does it so many times, in the ways of WAYS, and prints what was lost.
"""

import collections
import contextlib
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from osjax.training import goodput, metrics
from osjax.weights import orbax_stream
from osjax.weights.rules import whole
from tests.e2e.started import Started

WAYS = ("any moment", "start-up", "a save", "stopped and continued")
STAGES = ("autoencoder", "stage1_t2v", "stage2_i2v", "stage3_i2v")
AHEAD = 4  # lines of metrics that a process may add before it is killed


def start(workdir, devices: int = 1, config="configs/smoke.py", **overrides) -> Started:
    """`osjax train` in a process of its own; what it prints is beside the workdir."""
    workdir = Path(workdir)
    flags = {"workdir": workdir, **overrides}
    argv = ["train", f"--config={config}", *(f"--config.{key}={value}" for key, value in flags.items())]
    return Started(argv, workdir.parent / f"{workdir.name}.logs", devices)


def finish(workdir, devices=1, timeout=600, **overrides) -> Started:
    """Run to the end; the finished process."""
    done = start(workdir, devices, **overrides).finish(timeout)
    assert done.poll() == 0, done.stderr[-3000:]
    return done


def stop_after(workdir, stage: str, steps: int, devices=1, **overrides) -> tuple[int, str]:
    """Ask a run to stop (SIGTERM) once a stage has so many lines; (exit status, stderr)."""
    process = start(workdir, devices, **overrides)
    process.until(lambda: len(losses(workdir).get(stage, ())) >= steps)
    process.send_signal(signal.SIGTERM)
    return process.wait(300), process.stderr


def end(process: Started, way: str, workdir, start_s: float, rng: random.Random) -> None:
    """Kill a process of a run, if it does not end by itself before.

    way: of WAYS. start_s: seconds from a process's start to its first line of metrics, about.

    "start-up" goes by time, as nothing of a run can be seen then. The others go by lines of metrics, so that a fast
    machine and a slow one are killed in as many places and every run comes to its end, and a random moment more.
    """
    if way == "start-up":
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0, 1) * start_s)
    else:
        wanted = _lines(workdir) + rng.randint(1, AHEAD)
        process.until(lambda: _lines(workdir) >= wanted)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.random() ** 3 * start_s / 2)
    if way == "a save":
        process.until(lambda: any(Path(workdir).glob("*/checkpoints/*tmp*")))
    if way == "stopped and continued":
        for number in (signal.SIGSTOP, signal.SIGCONT) * 2:
            process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(rng.uniform(0, 2))
        if rng.random() < 0.5:  # as it stands still
            process.send_signal(signal.SIGSTOP)
    process.send_signal(signal.SIGKILL)


def kill_often(
    workdir, kills: int, start_s: float, seed: int = 0, ways: tuple[str, ...] = WAYS, **overrides
) -> list[tuple[str, tuple[str, int] | None]]:
    """Start a run again and again, each time killed in one of these ways, until it ends by itself.

    Gives (way, place) of each kill; a place is the stage and step of the last line of metrics, None before the first.
    start_s: as `end` takes it. overrides: as `start` takes them.
    """
    rng, found = random.Random(seed), []
    for _ in range(kills):
        process, way = start(workdir, **overrides), rng.choice(ways)
        end(process, way, workdir, start_s, rng)
        code = process.wait()
        if code == 0:
            break
        assert code == -signal.SIGKILL, process.stderr[-3000:]
        lines = metrics.read(Path(workdir) / "metrics.jsonl")
        found.append((way, (lines[-1]["stage"], lines[-1]["step"]) if lines else None))
    return found


def first_line(workdir, **overrides) -> float:
    """Run to the end; the seconds to the first line of metrics."""
    started = time.monotonic()
    process = start(workdir, **overrides)
    process.until(lambda: _lines(workdir) > 0)
    seconds = time.monotonic() - started
    assert process.finish(600).poll() == 0, process.stderr[-3000:]
    return seconds


def _lines(workdir) -> int:
    path = Path(workdir) / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def losses(workdir) -> dict[str, list[tuple[int, float]]]:
    """(step, loss) of every line, by stage, in the order of the file."""
    out = {}
    for line in metrics.read(Path(workdir) / "metrics.jsonl"):
        out.setdefault(line["stage"], []).append((line["step"], line["loss"]))
    return out


def weights(workdir, stage: str) -> dict[str, np.ndarray]:
    """Every array of a stage's last checkpoint: parameters, their average, moments and counters."""
    folder = Path(workdir) / stage / "checkpoints"
    last = max((p for p in folder.iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
    found = {}
    for item in ("params", "ema", "state"):
        leaves = orbax_stream.open_leaves(last / item)
        for path, shape in leaves.shapes.items():
            found["/".join((item, *path))] = leaves.read(path, whole(shape))
    found["data"] = np.frombuffer(json.dumps(json.loads((last / "data" / "metadata").read_text())).encode(), np.uint8)
    return found


def differences(workdir, undisturbed, stages) -> list[str]:
    """What a run that was killed has lost: empty where losses, weights and the place in the data have the same bits."""
    found = ["losses"] if losses(workdir) != losses(undisturbed) else []
    for stage in stages:
        got, want = weights(workdir, stage), weights(undisturbed, stage)
        assert got.keys() == want.keys() and len(want) > 100
        found += [f"{stage}: {name}" for name in want if not np.array_equal(got[name], want[name])]
    return found


def main() -> None:
    kills, places, turn = int(sys.argv[1]), [], 0
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        cache = {"compilation_cache": folder / "cache"}
        finish(folder / "whole", **cache)
        start_s = first_line(folder / "again", **cache)  # all is compiled now, as it is for those that are killed
        while len(places) < kills:
            workdir, turn = folder / f"run{turn}", turn + 1
            found = kill_often(workdir, kills - len(places), start_s, seed=turn, **cache)
            finish(workdir, **cache)
            lost = differences(workdir, folder / "whole", STAGES)
            places += found
            spent = goodput.read(workdir / goodput.FILE).spent
            told = ", ".join(f"{cause} {seconds:.0f} s" for cause, seconds in spent.items())
            ways = collections.Counter(way for way, _ in places)
            print(f"{len(places)} kills {dict(ways)}: {lost or 'nothing lost'}; the last run: {told}", flush=True)
            assert not lost
            shutil.rmtree(workdir)
    found = {place for _, place in places}
    print(f"{len(places)} kills of {turn} runs, at {len(found)} different places: nothing lost")


if __name__ == "__main__":
    main()
