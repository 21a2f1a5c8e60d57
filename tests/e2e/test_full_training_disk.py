"""Training on a disk that fills up, or that has no inodes left: one line, nothing half-made, then the same bits."""

import shutil

import pytest

from tests.e2e import faults
from tests.e2e.started import Started

pytestmark = pytest.mark.timeout(900)
STAGES = ("autoencoder", "stage1_t2v")
ROOM = 100_000  # kilobytes
# What it lacks: kilobytes, inodes, and where: before the first checkpoint, in the second stage.
SMALL = {"first": (300, ()), "later": (3000, ()), "inodes": (ROOM, ("nr_inodes=60",))}


def told(process):
    """What a run says but for its progress."""
    return [line for line in process.stderr.splitlines() if line.startswith(("osjax:", "Traceback", "ERROR"))]


def half_made(disk):
    return [path for path in disk.place.rglob("*") if path.name.endswith(".part") or "tmp" in path.name]


@pytest.mark.parametrize("lack", ["first", pytest.param("later", marks=pytest.mark.long), "inodes"])
def test_training_without_room_ends_in_one_line_and_goes_on_with_the_same_bits_once_there_is(
    lack, disk, two_stages, undisturbed
):
    size, options = SMALL[lack]
    disk.mount(size, *options)
    workdir = disk.place / "run"
    process = faults.start(workdir, **two_stages).finish(400)
    assert process.poll() == 1
    lines = told(process)
    assert len(lines) == 1 and "no space is left for" in lines[0] and "make room" in lines[0], lines
    assert str(disk.place) in lines[0]
    assert not half_made(disk)
    disk.mount(ROOM, *(["nr_inodes=100000"] if options else []))
    faults.finish(workdir, **two_stages)
    assert not faults.differences(workdir, undisturbed, STAGES)


def test_encode_without_room_ends_in_one_line_and_makes_the_same_features_once_there_is(disk, two_stages, undisturbed):
    workdir = disk.place / "run"

    def encoded():
        cache = f"--config.compilation_cache={two_stages['compilation_cache']}"
        argv = ["encode", "--config=tests/e2e/two_stages.py", f"--workdir={workdir}", cache]
        return Started(argv, disk.place.parent / "logs").finish(300)

    def trained():
        """Room for what was trained; the kilobytes that it takes."""
        disk.mount(ROOM)
        for name in ("autoencoder", "data"):
            shutil.copytree(undisturbed / name, workdir / name)
        return disk.used()

    def features():
        files = sorted(path for path in (workdir / "latents").rglob("*") if path.is_file())
        return {path.name: path.read_bytes() for path in files if path.suffix not in (".json", ".lock")}

    trained()
    assert encoded().poll() == 0
    whole = features()
    disk.close()
    disk.mount(trained() + 100)
    process = encoded()
    assert process.poll() == 1
    lines = told(process)
    assert len(lines) == 1 and "space" in lines[0], lines
    disk.mount(ROOM)
    assert encoded().poll() == 0
    assert features() == whole and whole
