"""Videos per second and core of each step of curation, and what 70 M clips cost: `python -m tests.measures.curation`.

The videos are 10 s of 1280x720 at 24 frames per second with one cut; a clip is what the cut makes of a shot.
"""

import tempfile
import time
from pathlib import Path

import numpy as np

from osjax.curation import caption, cut, filter, raw, score
from osjax.data import clips, video

VIDEOS, CLIPS = 3, 70e6
DOLLARS = 0.04  # an hour of a rented core, without the GPU that captions


def write(folder: Path) -> list[dict]:
    """Videos of two shots: coloured shapes over noise that moves, which costs a codec about what film does."""
    rows = []
    for n, pair in enumerate(np.array(clips.specs(2 * VIDEOS, 0, clips.combinations()), object).reshape(VIDEOS, 2)):
        shots = []
        for spec in pair:
            small = np.repeat(clips.render(spec, 180, 24), 5, axis=0)
            grain = np.random.default_rng(spec.seed).integers(0, 40, (720, 1400, 1), dtype=np.uint8)
            frames = np.kron(small, np.ones((1, 4, 8, 1), np.uint8))[:, :, :1280]
            shots.append(np.stack([frame // 2 + grain[:, t : t + 1280] for t, frame in enumerate(frames)]))
        video.write_mp4(folder / f"{n}.mp4", np.concatenate(shots), 24)
        rows.append({"path": str(folder / f"{n}.mp4"), "text": ""})
    return rows


def timed(work, rows: list[dict]) -> tuple[list[dict], float]:
    """What `work` makes of each row, and CPU seconds a row."""
    started = time.process_time()
    made = [out for row in rows for out in work(row)]
    return made, (time.process_time() - started) / len(rows)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows = write(Path(folder))
        score.score(rows[0], score.Scoring())  # imports
        thresholds = filter.Filtering((filter.Stage("motion", 0.3, 20.0), filter.Stage("blur", 20.0)))
        look = caption.Captioning("http://127.0.0.1/v1", "m")
        steps = {
            "probe": lambda row: [{**row, **raw.inspect(Path(row["path"]))}],
            "cut": lambda row: cut.cut(row, cut.Cutting(), folder),
            "score": lambda row: score.score(row, score.Scoring()),
            "filter": lambda row: [filter.judge(row, thresholds, {})],
            "caption (frames)": lambda row: caption._look(row, look),
        }
        print("| step | CPU s of one | a second and core | core hours of 70 M clips | $ |\n|---|--:|--:|--:|--:|")
        videos = len(rows)
        for name, work in steps.items():
            count = len(rows)
            rows, seconds = timed(work, rows)
            hours = CLIPS * (videos / len(rows) if name in ("probe", "cut") else 1) * seconds / 3600
            kind = "video" if count == videos and name in ("probe", "cut") else "clip"
            print(f"| {name} | {seconds:.4f} a {kind} | {1 / seconds:.2f} | {hours:,.0f} | {hours * DOLLARS:,.0f} |")
        print(f"{videos} videos of {rows[0]['height']}p became {len(rows)} clips")
        for metric in ("motion", "jitter", "blur", "hash"):
            _, seconds = timed(lambda row, m=metric: score.score(row, score.Scoring((m,))), rows)
            print(f"{metric}: {seconds:.3f} s a clip")


if __name__ == "__main__":
    main()
