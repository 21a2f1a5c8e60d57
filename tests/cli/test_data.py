"""`osjax data` on real files: good clips, broken clips among them, and bad input."""

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from osjax.__main__ import main
from osjax.curation import tables
from osjax.data import clips, dataset, fingerprints
from osjax.data.video import write_mp4
from tests.small_disk import SmallDisk


@pytest.fixture
def folder(tmp_path):
    for name in ("one", "two"):
        write_mp4(tmp_path / f"{name}.mp4", np.full((4, 32, 48, 3), 90, np.uint8), fps=8)
        (tmp_path / f"{name}.txt").write_text(f"clip {name}\n")
    (tmp_path / "broken.mp4").write_bytes((tmp_path / "one.mp4").read_bytes()[:200])
    (tmp_path / "broken.txt").write_text("a broken clip")
    (tmp_path / "empty.mp4").write_bytes(b"")
    return tmp_path


def test_probe_keeps_good_clips_and_gives_reasons_for_the_others(folder, capsys):
    out = folder / "tables" / "clips.csv"
    short = ["--config.probe.min_seconds=0", "--config.probe.min_fps=8", "--config.engine=loop"]
    assert main(["data", "probe", str(folder), str(out), *short]) == 0
    assert "2 clips kept, 2 dropped" in capsys.readouterr().out
    kept = list(csv.DictReader(out.open()))
    assert [(row["text"], row["num_frames"], row["height"], row["width"]) for row in kept] == [
        ("clip one", "4", "32", "48"),
        ("clip two", "4", "32", "48"),
    ]
    reasons = {
        row["path"].rsplit("/")[-1]: row["reason"] for row in csv.DictReader(out.with_suffix(".dropped.csv").open())
    }
    assert "cannot be decoded" in reasons["broken.mp4"] and "is empty" in reasons["empty.mp4"]
    assert main(["data", "probe", str(folder), str(out.with_name("strict.csv")), *short[1:]]) == 0
    assert "0 clips kept, 4 dropped" in capsys.readouterr().out  # half a second is too short for the report's rules


def test_build_makes_a_data_set_that_reads_back(folder, capsys):
    assert main(["data", "build", str(folder), str(folder / "set")]) == 0
    path = capsys.readouterr().out.strip().splitlines()[-1].removeprefix("data set: ")
    source = dataset.open_source(path)
    assert sorted(source[i]["text"].decode() for i in range(len(source))) == ["clip one", "clip two"]
    dropped = tables.rows(folder / "set" / "dropped.parquet", folder)
    assert {row["path"].rsplit("/")[-1]: row["reason"][-8:] for row in dropped}.keys() == {"broken.mp4", "empty.mp4"}


@pytest.mark.parametrize(
    "argv,status,message",
    [
        (["probe", "nowhere.csv", "out.csv"], 1, "nowhere.csv does not exist"),
        (["probe", ".", "out.txt"], 2, "is neither .csv nor .parquet"),
        (["prune", ".", "out.csv"], 2, "invalid choice: 'prune'"),
        (["probe"], 2, "required: IN, OUT"),
        (["probe", ".", "out.csv", "--root=one"], 2, "--root=one is no folder"),
        (["probe", ".", "out.csv", "--config.probe.min_second=1"], 2, "did you mean probe.min_seconds"),
        (["caption", ".", "out.csv"], 2, "no caption server: give --config.caption.url"),
        (["filter", ".", "out.csv"], 1, "has no column motion, jitter, blur, hash: run `osjax data score`"),
        (["stats", ".", "out.txt"], 2, "out.txt is not a .html file"),
        (["run", "--config.source=."], 2, "give --config.source=FOLDER_OR_TABLE and --config.out=FOLDER"),
    ],
)
def test_bad_input_is_one_line(folder, monkeypatch, capsys, argv, status, message):
    monkeypatch.chdir(folder)
    assert main(["data", *argv]) == status
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error and error.startswith("osjax")


def test_table_without_a_caption_column_names_what_is_missing(tmp_path, capsys):
    (tmp_path / "clips.csv").write_text("path,words\na.mp4,hello\n")
    assert main(["data", "probe", str(tmp_path / "clips.csv"), str(tmp_path / "out.csv")]) == 1
    assert "lacks the column text; it has path, words" in capsys.readouterr().err


@pytest.fixture
def small_disk(tmp_path):
    """A function that mounts a disk of so many kilobytes, where this process may."""
    disk = SmallDisk(tmp_path / "disk")
    yield disk.mount
    disk.close()


@pytest.fixture
def many(tmp_path):
    clips.write_clips(tmp_path / "many", clips.specs(40, 0, clips.combinations()), 64, 16, 8)
    return tmp_path / "many" / "clips.csv"


def test_a_full_disk_is_one_line_and_leaves_nothing_half_made(many, small_disk, capsys):
    place = small_disk(200)
    assert main(["data", "build", str(many), str(place / "out")]) == 1
    err = [line for line in capsys.readouterr().err.splitlines() if line.startswith("osjax: ")]
    assert err == [f"osjax: no space is left for the data set in {place / 'out'}: make room and run it again"]
    assert list(place.rglob("*")) == []


def test_a_data_set_that_was_there_outlives_a_full_disk(many, small_disk, capsys):
    place = small_disk(400)
    few = many.with_name("few.csv")
    few.write_text("".join(many.read_text().splitlines(keepends=True)[:3]))
    assert main(["data", "build", str(few), str(place)]) == 0
    made = capsys.readouterr().out.split("data set: ")[1].strip()
    before = sorted(p.name for p in place.rglob("*"))
    assert main(["data", "build", str(many), str(place)]) == 1
    assert len(dataset.open_source(made)) == 2 and fingerprints.check(Path(made)) == 1 + len(dataset.FILES)
    assert sorted(p.name for p in place.rglob("*")) == before
    assert main(["data", "build", str(many), str(many.parent / "out")]) == 0  # where there is room


def test_a_disk_that_fills_up_after_the_shards_leaves_no_data_set_without_its_index(many, small_disk, capsys):
    place = small_disk(8000)
    assert main(["data", "build", str(many), str(place / "out")]) == 0
    made = Path(capsys.readouterr().out.split("data set: ")[1].strip())
    last = max(made.iterdir(), key=lambda p: p.stat().st_mtime_ns)
    assert last.name == "README.md"  # so one page less has room for all but this
    state = os.statvfs(place)
    used = (state.f_blocks - state.f_bfree) * state.f_frsize // 1024
    shutil.rmtree(place / "out")
    assert main(["data", "build", str(many), str(small_disk(used - 4) / "out")]) == 1
    assert "no space is left for the data set" in capsys.readouterr().err
    assert list(place.rglob("*")) == []
    assert main(["data", "build", str(many), str(small_disk(used + 4) / "out")]) == 0
