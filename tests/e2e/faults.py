"""Runs of `osjax train` that are killed at random moments, and what is left of them.

`python -m tests.e2e.faults 200` does it so many times and prints what was lost.
"""

import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from osjax.training import metrics
from osjax.weights import orbax_stream
from osjax.weights.rules import whole
from tests.e2e.started import Started

STAGES = ("autoencoder", "stage1_t2v", "stage2_i2v", "stage3_i2v")


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


def kill_often(
    workdir, kills: int, seconds: float, seed: int = 0, **overrides
) -> tuple[list[tuple[str, int] | None], float]:
    """Start a run again and again, each time killed at a random moment.

    seconds: the longest that a process lives at first. Three kills in the same place let the next one live longer, so
    that a machine with other work comes to an end too.

    Gives where each kill found the run, by its metrics, and the longest that a process lived in the end.
    """
    rng, found = random.Random(seed), []
    for _ in range(kills):
        process = start(workdir, **overrides)
        try:
            process.wait(rng.uniform(0.2, 1) * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        code = process.wait()
        if code == 0:
            break
        assert code == -signal.SIGKILL, process.stderr[-3000:]
        lines = metrics.read(Path(workdir) / "metrics.jsonl")
        found.append((lines[-1]["stage"], lines[-1]["step"]) if lines else None)
        if found[-3:] == [found[-1]] * 3:
            seconds *= 1.3
    return found, seconds


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


def main() -> None:
    kills = int(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        cache = {"compilation_cache": folder / "cache"}
        started = time.monotonic()
        finish(folder / "whole", **cache)
        seconds = (time.monotonic() - started) / 2
        done, turn = 0, 0
        while done < kills:
            places, seconds = kill_often(folder / f"run{turn}", kills - done, seconds, seed=turn, **cache)
            finish(folder / f"run{turn}", **cache)
            same = losses(folder / f"run{turn}") == losses(folder / "whole")
            done, turn = done + len(places), turn + 1
            print(f"{done} kills, the last run's at {places}: {'nothing lost' if same else 'DIFFERENT'}", flush=True)
            assert same


if __name__ == "__main__":
    main()
