"""The engine: shards, resumption after kills, quarantine, tables that lead elsewhere; with Beam and without."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from osjax.curation import engine, tables
from osjax.curation.isolate import Limits, Pool, need
from osjax.errors import UserError

ROOT = Path(__file__).parents[2]
QUICK = Limits(seconds=20, workers=1)


def touch(rows, pool, log):
    """Count what was worked on, in files; drop the clips with an odd number."""
    out = []
    for row in rows:
        with open(log, "a") as file:
            file.write(row["text"] + "\n")
        out.append({**row, "seen": 1, **({"reason": "odd"} if int(row["text"]) % 2 else {})})
    return out


def stumble(rows, pool, log):
    if any(row["text"] == "4" for row in rows) and not Path(log).with_suffix(".mended").exists():
        raise UserError("the disk is full")
    return touch(rows, pool, log)


@pytest.fixture
def clips(tmp_path):
    for i in range(7):
        (tmp_path / f"{i}.mp4").write_bytes(b"clip")
    tables.write(tmp_path / "in.parquet", [{"path": f"{i}.mp4", "text": str(i)} for i in range(7)])
    return tmp_path / "in.parquet"


@pytest.mark.parametrize("beam_options", [None, []], ids=["loop", "beam"])
@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_every_clip_is_kept_or_has_a_row_with_its_reason(clips, tmp_path, beam_options, suffix):
    if beam_options is not None:
        pytest.importorskip("apache_beam")
    step = engine.Step("touch", partial(touch, log=str(tmp_path / "log")), shard=3)
    out = tmp_path / f"out{suffix}"
    outcome = engine.run(step, clips, out, limits=QUICK, beam_options=beam_options)
    assert (outcome.kept, outcome.dropped) == (4, 3)
    kept, dropped = list(tables.rows(out)), list(tables.rows(outcome.dropped_table))
    assert [row["text"] for row in kept] == ["0", "2", "4", "6"] and "reason" not in kept[0]
    assert [(row["text"], row["stage"], row["reason"]) for row in dropped] == [(i, "touch", "odd") for i in "135"]
    assert [Path(row["path"]) for row in kept] == [tmp_path / f"{i}.mp4" for i in (0, 2, 4, 6)]


def test_a_stopped_step_goes_on_where_it_stood_and_a_finished_one_does_nothing(clips, tmp_path):
    log = tmp_path / "log"
    run = partial(engine.run, source=clips, out=tmp_path / "out.parquet", limits=QUICK)
    step = engine.Step("stumble", partial(stumble, log=str(log)), shard=2)
    with pytest.raises(UserError, match="disk is full"):
        run(step)
    assert log.read_text().split() == list("0123") and not (tmp_path / "out.parquet").exists()
    log.with_suffix(".mended").touch()
    first = run(step)
    assert log.read_text().split() == list("0123456")  # each clip once, over both runs
    content = (tmp_path / "out.parquet").read_bytes()
    assert run(step) == first and (tmp_path / "out.parquet").read_bytes() == content
    assert log.read_text().split() == list("0123456")
    run(dataclasses.replace(step, options={"other": 1}))  # other options are another result
    assert log.read_text().split() == list("0123456") * 2


def test_changed_input_is_worked_on_anew(clips, tmp_path):
    log = tmp_path / "log"
    step = engine.Step("touch", partial(touch, log=str(log)), shard=8)
    engine.run(step, clips, tmp_path / "out.parquet", limits=QUICK)
    tables.write(clips, [{"path": "2.mp4", "text": "8"}])
    assert engine.run(step, clips, tmp_path / "out.parquet", limits=QUICK).kept == 1
    assert log.read_text().split()[-1] == "8" and not (tmp_path / "out.dropped.parquet").exists()


def test_a_path_that_leads_out_of_the_folder_is_refused(clips, tmp_path):
    secret = tmp_path.parent / f"{tmp_path.name}-secret.mp4"
    secret.write_bytes(b"clip")
    (tmp_path / "link.mp4").symlink_to(secret)
    for path in (f"../{secret.name}", str(secret), "link.mp4"):
        for name in ("bad.parquet", "bad.csv"):
            tables.write(tmp_path / name, [{"path": path, "text": ""}])
            (bad,) = tables.rows(tmp_path / name)
            assert re.search("lies outside of .*: give --root=FOLDER", bad["reason"])
            assert [row["path"] for row in tables.rows(tmp_path / name, tmp_path.parent)] == [str(secret.resolve())]


def misbehave(row):
    match row["text"]:
        case "hang":
            time.sleep(600)
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "greedy":
            bytearray(1 << 40)
        case "wrong":
            raise KeyError("no such key")
        case "user":
            raise UserError("no good")
    return [{**row, "fine": True}]


def test_clips_that_hang_crash_or_eat_memory_are_quarantined_and_the_others_go_on():
    texts = ["a", "hang", "b", "crash", "c", "greedy", "wrong", "user", "d"]
    with Pool(Limits(seconds=8, per_second=0, memory_gb=8, workers=1)) as pool:
        rows = pool.each(misbehave, [{"path": "x", "text": text} for text in texts])
    reasons = {row["text"]: row.get("reason") for row in rows}
    assert [text for text in texts if reasons[text] is None] == list("abcd")
    for text, says in {
        "hang": "quarantined: ran past its deadline",
        "crash": "quarantined: took its process down",
        "greedy": "quarantined: MemoryError",
        "wrong": "quarantined: KeyError",
        "user": "no good",
    }.items():
        assert reasons[text].startswith(says)


def slow_at_first(row):
    flag = Path(row["path"])
    if not flag.exists():
        flag.touch()
        time.sleep(600)
    return [{**row, "fine": True}]


@pytest.mark.parametrize(("load", "fine"), [(900.0, True), (0.0, False)], ids=["busy", "idle"])
def test_a_clip_that_is_late_on_a_busy_machine_is_tried_again(load, fine, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load))
    with Pool(Limits(seconds=3, per_second=0, workers=1)) as pool:
        (row,) = pool.each(slow_at_first, [{"path": str(tmp_path / "seen"), "text": "a"}])
    assert row.get("fine", False) == fine and bool(row.get("reason")) != fine


def test_a_deadline_grows_with_the_video_but_not_for_ever():
    limits = Limits(seconds=10, per_second=2)
    assert limits.deadline({"duration": 5.0}) == 20 and limits.deadline({"num_frames": 48, "fps": 24.0}) == 14
    assert limits.deadline({}) == 10 and limits.deadline({"duration": 1e12}) == 6 * 3600


def test_a_library_that_is_not_there_names_its_extra():
    with pytest.raises(UserError, match=r"pip install 'osjax\[ocr\]'"):
        need("no_such_library", "ocr")


def test_a_killed_cut_is_finished_by_the_same_command(tmp_path):
    from osjax.data import table
    from tests.curation.conftest import picture, write

    for i in range(6):
        write(tmp_path / "videos" / f"{i}.mp4", picture(60, 64, 96, i)) if i else (tmp_path / "videos").mkdir()
    write(tmp_path / "videos" / "0.mp4", picture(60, 64, 96))
    command = [sys.executable, "-m", "osjax", "data", "cut", "videos"]
    options = ["--config.engine=loop", "--config.shard=1", "--config.limits.workers=1"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.Popen([*command, "out.csv", *options], cwd=tmp_path, env=env, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (done := list(tmp_path.glob("out.work/*/out/*.parquet"))) and time.monotonic() < deadline:
        assert run.poll() is None
        time.sleep(0.02)
    run.kill()
    run.wait()
    assert 1 <= len(done) < 6 and not (tmp_path / "out.csv").exists()
    before = {path: path.stat().st_mtime_ns for path in done}
    for out in ("out.csv", "whole.csv"):
        subprocess.run([*command, out, *options], cwd=tmp_path, env=env, check=True, timeout=200)
    assert {path: path.stat().st_mtime_ns for path in done} == before
    resumed, whole = table.read(tmp_path / "out.csv"), table.read(tmp_path / "whole.csv")
    names = [Path(row["path"]).name for row in whole]
    assert [Path(row["path"]).name for row in resumed] == names and len(names) == 6
    for name in names:
        assert (tmp_path / "out.clips" / name).read_bytes() == (tmp_path / "whole.clips" / name).read_bytes()
