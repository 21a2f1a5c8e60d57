"""`osjax data run` as a user runs it: a folder of good and broken videos, killed anywhere, run again."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from osjax.__main__ import main
from tests.curation.conftest import picture, write

ROOT = Path(__file__).parents[2]
STEPS = ("probe", "cut", "score", "filter")
FLAGS = ["--config.steps=" + ",".join(STEPS), "--config.engine=loop", "--config.limits.workers=1", "--config.shard=2"]
FLAGS += ["--config.score.metrics=blur,hash", "--config.filter.order=blur", "--config.cut.preset=ultrafast"]
KILLS = (2, 5, 7)  # finished shards, of 10, when a run is killed: in probe, before cut, before score


@pytest.fixture(scope="module")
def videos(tmp_path_factory, zoo):
    """Three good videos, one of them a copy of another, a blurred one, and files of the zoo."""
    folder = tmp_path_factory.mktemp("raw") / "videos"
    folder.mkdir()
    for name, seed in (("a", 1), ("b", 2), ("b_again", 2)):
        write(folder / f"{name}.mp4", picture(60, 64, 96, seed))
        (folder / f"{name}.txt").write_text(f"words of {name}")
    smooth = np.linspace(40, 200, 96)[None, None, :, None] + np.arange(60)[:, None, None, None] / 4
    write(folder / "blurred.mp4", np.broadcast_to(smooth, (60, 64, 96, 3)).astype(np.uint8), crf=4)
    for name in ("empty", "text", "audio", "cut_50", "no_frames", "one_frame"):
        shutil.copy(zoo[name], folder)
    return folder


def command(videos, out):
    return [sys.executable, "-m", "osjax", "data", "run", f"--config.source={videos}", f"--config.out={out}", *FLAGS]


def start(videos, out):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command(videos, out), env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(videos, out):
    run = start(videos, out)
    stdout, stderr = run.communicate(timeout=250)
    assert run.returncode == 0, stderr
    return stdout


def rows(out, name):
    """Rows of a table with the paths of clips without the folder they were written to."""
    found = pq.read_table(out / f"{name}.parquet").to_pylist()
    return [{k: v.replace(str(out), "") if isinstance(v, str) else v for k, v in row.items()} for row in found]


@pytest.fixture(scope="module")
def whole(videos, tmp_path_factory):
    """(folder, output) of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    return out, finish(videos, out)


def test_every_video_ends_as_a_clip_or_as_a_row_with_its_stage_and_reason(whole, videos):
    out, _ = whole
    left, dropped = rows(out, "clips"), rows(out, "dropped")
    names = {Path(row.get("source") or row["path"]).stem for row in left}
    assert names == {"a", "b"} and {row["text"] for row in left} == {"words of a", "words of b"}
    gone = {Path(row.get("source") or row["path"]).stem: (row["stage"], row["reason"]) for row in dropped}
    assert gone.keys() | names == {path.stem for path in videos.glob("*.mp4")} and not gone.keys() & names
    assert gone["empty"] == ("probe", f"{videos / 'empty.mp4'} is empty") and gone["one_frame"][0] == "probe"
    assert gone["b_again"][0] == "filter" and gone["b_again"][1].startswith("near-duplicate of")
    assert gone["blurred"][0] == "filter" and "below 20" in gone["blurred"][1]
    assert all(Path(row["path"]).is_file() for row in pq.read_table(out / "dropped.parquet").to_pylist())


def test_the_pyramid_counts_what_each_stage_kept_and_dropped(whole):
    out, stdout = whole
    counts = [(c["stage"], c["kept"], c["dropped"]) for c in json.loads((out / "pyramid.json").read_text())]
    assert counts == [("probe", 4, 6), ("cut", 4, 0), ("score", 4, 0), ("blur", 3, 1), ("duplicate", 2, 1)]
    assert all(f"  {stage:<16} kept {kept:>9}  dropped {gone:>9}" in stdout for stage, kept, gone in counts)


def test_a_run_killed_again_and_again_ends_with_the_same_tables_and_files(whole, videos, tmp_path):
    undisturbed, _ = whole
    out, rng = tmp_path / "out", random.Random(0)
    for shards in KILLS:
        run = start(videos, out)
        while len(list(out.glob("*.work/*/out/*.parquet"))) < shards:
            assert run.poll() is None, run.communicate()
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate()
    assert not (out / "clips.parquet").exists()
    finish(videos, out)
    for name in ("clips", "dropped", *(f"{n}-{step}" for n, step in enumerate(STEPS, 1))):
        assert repr(rows(out, name)) == repr(rows(undisturbed, name))  # an image's rate is nan, which equals nothing
    clips = {path.name: path.read_bytes() for path in (undisturbed / "2-cut.clips").iterdir()}
    assert {path.name: path.read_bytes() for path in (out / "2-cut.clips").iterdir() if path.name[0] != "."} == clips
    assert (out / "pyramid.json").read_text() == (undisturbed / "pyramid.json").read_text()


def test_a_finished_run_works_on_nothing_again(whole, videos, capsys):
    out, stdout = whole
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet") if path.parent != out}
    clips = {path: path.stat().st_mtime_ns for path in (out / "2-cut.clips").iterdir()}
    assert main(command(videos, out)[3:]) == 0
    assert capsys.readouterr().out == stdout
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet") if path.parent != out} == before
    assert {path: path.stat().st_mtime_ns for path in (out / "2-cut.clips").iterdir()} == clips


def test_a_run_that_no_clip_survives_says_where_the_reasons_are(zoo, tmp_path, capsys):
    (tmp_path / "videos").mkdir()
    for name in ("empty", "text"):
        shutil.copy(zoo[name], tmp_path / "videos")
    assert main(command(tmp_path / "videos", tmp_path / "out")[3:]) == 1
    assert "probe left no clip" in capsys.readouterr().err
    assert len(rows(tmp_path / "out", "dropped")) == 2
