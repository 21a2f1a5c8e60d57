"""Clips per second and core: only the frames that are wanted, against whole files. `python -m tests.measures.decoding`.

A third way are the wanted frames by a process of its own, as data sets are read. All end with the same pixels, resized
and cropped; time is that of the process, and of the one that it has, on their CPU.
"""

import tempfile
import time
from collections.abc import Collection
from pathlib import Path

import numpy as np

from osjax.data import clips, frames, loader, transforms, video
from tests.data.test_workers import children

# Name, side, frames and rate of the file; wanted: frames, side.
KINDS = (
    ("demo", 80, 8, 8, ((8, 64), (8, 80), (4, 64), (1, 64))),
    ("768px, 10 s", 768, 240, 24, ((129, 256), (33, 256), (129, 768), (33, 768), (1, 256))),
)
SECONDS = 3.0  # of CPU time for each way, at least


def whole(record, num_frames: int, side: int, start: int) -> np.ndarray:
    """As a loader that decodes every frame does it."""
    everything = video.decode(record["video"])
    picked = everything[frames.pick(len(everything), num_frames, 1, start)]
    return transforms.resize_crop_clip(picked, side, side, exact=False)


def cpu_seconds(others: Collection[int]) -> float:
    """Of this process and of others by their ids."""
    return time.process_time() + sum(time.clock_gettime((~pid << 3) | 2) for pid in others)


def rates_of(*works) -> list[float]:
    """Calls per second of CPU time of each, in turns, so that a busy machine slows them alike."""
    spent, calls = [0.0] * len(works), 0
    for work in works:
        work(0)
    others = [int(pid) for pid in children()]
    while min(spent) < SECONDS:
        calls += 1
        for n, work in enumerate(works):
            started = cpu_seconds(others)
            work(calls)
            spent[n] += cpu_seconds(others) - started
    return [calls / seconds for seconds in spent]


def records(folder: Path, side: int, count: int, fps: int) -> list[dict]:
    specs = clips.specs(2 if side > 500 else 16, 0, clips.combinations())
    clips.write_clips(folder, specs, side, count, fps)
    about = {"path": b"", "text": b"", "num_frames": count, "fps": float(fps)}
    return [{**about, "video": path.read_bytes()} for path in sorted(folder.glob("*.mp4"))]


def main() -> None:
    print("| file | wanted | whole files | wanted frames | | by a process | |\n|---|---|--:|--:|--:|--:|--:|")
    for name, side, count, fps, wanted in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            source = records(Path(folder), side, count, fps)
        for num_frames, size in wanted:
            old, new, apart = rates(source, count, num_frames, size)
            compared = f"{old:.2f} | {new:.2f} | {new / old:.1f} | {apart:.2f} | {apart / new:.2f}"
            print(f"| {name} | {num_frames} x {size}px | {compared} |", flush=True)


def rates(source: list[dict], count: int, num_frames: int, size: int) -> list[float]:
    """Of whole files, of wanted frames, and of these by a process."""
    latest = frames.latest_start(count, num_frames, 1)
    starts = np.random.default_rng(0).integers(latest, endpoint=True, size=4096)
    window, workers = loader.Window(num_frames, size, size, random_start=True), loader.ClipWorkers(source, 1, 60.0)
    reader, apart = loader.ClipReader(source, window), loader.ClipReader(source, window, workers)
    return rates_of(
        lambda n: whole(source[n % len(source)], num_frames, size, int(starts[n % 4096])),
        lambda n: reader(n % len(source), np.random.default_rng(n)),
        lambda n: apart(n % len(source), np.random.default_rng(n)),
    )


if __name__ == "__main__":
    main()
