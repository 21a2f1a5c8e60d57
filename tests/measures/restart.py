"""From a kill to the next trained step: seconds of `osjax train` by what they went into, out of its ledger.

`python -m tests.measures.restart [KILLS [CACHE]]`: `configs/smoke.py`, whose programs are in the cache (a folder,
filled first where none is given), is killed in the middle of its second, third and fourth stage, and started again at
once in a process of its own.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from osjax.training import goodput, metrics

ROOT = Path(__file__).parents[2]
STAGES = {"stage1_t2v": 10, "stage2_i2v": 6, "stage3_i2v": 6}  # killed after so many lines
CAUSES = ("start", "prepare", "restore", "compile", "data", "step")


def start(workdir: Path, cache: Path) -> subprocess.Popen:
    flags = [f"--workdir={workdir}", f"--config.compilation_cache={cache}"]
    argv = [sys.executable, "-m", "osjax", "train", "--config=configs/smoke.py", *flags]
    return subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def lines_of(workdir: Path, stage: str) -> int:
    return sum(line["stage"] == stage for line in metrics.read(workdir / "metrics.jsonl"))


def until(process: subprocess.Popen, condition) -> None:
    while not condition():
        if process.poll() is not None:
            raise SystemExit(f"the run ended with {process.poll()}")
        time.sleep(0.02)


def restarted(workdir: Path, cache: Path) -> dict[str, float]:
    """Seconds from the start of a process to its first line of metrics, whole and by cause; it is killed then."""
    before, steps = len(ledger(workdir)), {}
    began = time.monotonic()
    process = start(workdir, cache)
    until(process, lambda: any(line.get("step", -1) >= 0 for line in ledger(workdir)[before:]))
    steps["whole"] = time.monotonic() - began
    process.send_signal(signal.SIGKILL)
    process.wait()
    for line in ledger(workdir)[before:]:
        for cause, seconds in line["spent"].items():
            steps[cause] = steps.get(cause, 0.0) + seconds
        if line.get("step", -1) >= 0:
            break
    return steps


def ledger(workdir: Path) -> list[dict]:
    path = workdir / goodput.FILE
    if not path.exists():
        return []
    texts = path.read_text().split("\n")[:-1]
    return [json.loads(text) for text in texts if text]


def main() -> None:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    print(f"medians of {kills} kills, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}\n")
    print("| stage | kill to next step | " + " | ".join(CAUSES) + " |")
    print("|---|" + "--:|" * (len(CAUSES) + 1), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        workdir, cache = Path(folder) / "run", Path(sys.argv[2] if len(sys.argv) > 2 else f"{folder}/cache")
        if len(sys.argv) < 3 and start(Path(folder) / "warm", cache).wait():  # which fills it
            raise SystemExit("the run failed")
        process = start(workdir, cache)
        for stage, count in STAGES.items():
            until(process, lambda stage=stage, count=count: lines_of(workdir, stage) >= count)
            process.send_signal(signal.SIGKILL)
            process.wait()
            taken = [restarted(workdir, cache) for _ in range(kills)]
            cells = [statistics.median(row.get(cause, 0.0) for row in taken) for cause in ("whole", *CAUSES)]
            print(f"| {stage} | " + " | ".join(f"{x:.1f} s" for x in cells) + " |", flush=True)
            process = start(workdir, cache)
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
