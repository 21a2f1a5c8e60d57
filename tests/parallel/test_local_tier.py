"""Processes killed with their disks go on from other hosts' disks, or from the store, with the same bits."""

import json
import re
import shutil
import signal

import numpy as np
import pytest
from etils import epath

from osjax import integrity
from osjax.training import host_disk, metrics
from osjax.weights import orbax_stream
from osjax.weights.rules import whole
from tests.forked import Forked
from tests.parallel import local_tier_process as process
from tests.parallel import processes

# Mesh and devices of a process -> several hosts with one copy of the model each, and two copies over two hosts each.
REPLICAS = {"two": (2, "2,2,1,1", 2), "four": (4, "2,2,1,1", 1)}
ALONE = (2, "1,4,1,1", 2)  # one copy over both
DIES_AT = 17


def started(folder, layout, disks, die=()):
    count, mesh, devices = layout
    address = f"localhost:{processes.free_port()}"
    argv = [[address, str(count), str(i), str(folder), str(disks[i]), mesh, *map(str, die)] for i in range(count)]
    return [Forked(process.main, argv[i], folder / f"log{i}", devices) for i in range(count)]


def finish(folder, layout, disks):
    """Run to the end; at which step it began, and from where."""
    runs = started(folder, layout, disks)
    try:
        assert [run.wait(200) for run in runs] == [0] * len(runs), runs[0].stderr[-3000:]
    finally:
        for run in runs:
            run.kill()
    began = {re.search(r"began at (\d+) of the (\w+)", run.stdout).groups() for run in runs}
    assert len(began) == 1
    step, place = began.pop()
    return int(step), place, "".join(run.stderr for run in runs)


def killed(folder, layout, disks, victim):
    """A run of which one process is killed; the others are ended as soon as it is gone."""
    runs = started(folder, layout, disks, (victim, DIES_AT))
    try:
        assert runs[victim].wait(200) == -signal.SIGKILL, runs[victim].stderr[-3000:]
    finally:
        for run in runs:
            run.kill()
            run.wait(20)


def bits(folder):
    """Losses, and every array of the last checkpoint."""
    lines = [line["loss"] for line in metrics.read(folder / "metrics.jsonl")]
    last = folder / "checkpoints" / str(process.STEPS)
    arrays = {"place": json.loads((last / "data" / "metadata").read_text())}
    for item in ("params", "ema", "state"):
        leaves = orbax_stream.open_leaves(last / item)
        arrays |= {"/".join((item, *path)): leaves.read(path, whole(leaves.shapes[path])) for path in leaves.shapes}
    return lines, arrays


def same(folder, other):
    losses, arrays = bits(folder)
    wanted, want = bits(other)
    assert len(losses) == process.STEPS and losses == wanted and losses != wanted[::-1]
    assert arrays.keys() == want.keys() and len(want) > 6
    assert all(np.array_equal(arrays[name], want[name]) for name in want)


def disks_of(folder, layout):
    return [folder / f"disk{i}" for i in range(layout[0])]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder of a whole run, by layout."""
    made = {}

    def of(layout):
        if layout not in made:
            folder = made[layout] = tmp_path_factory.mktemp("whole")
            assert finish(folder, layout, disks_of(folder, layout))[:2] == (0, "store")
        return made[layout]

    return of


@pytest.mark.parametrize(
    "layout", [REPLICAS["two"], pytest.param(REPLICAS["four"], marks=pytest.mark.long)], ids=REPLICAS
)
def test_a_process_killed_with_its_disk_gets_its_parts_from_a_replica_and_the_run_ends_with_equal_bits(
    layout, undisturbed, tmp_path
):
    disks = disks_of(tmp_path, layout)
    killed(tmp_path, layout, disks, victim=layout[0] - 1)
    shutil.rmtree(disks[-1])
    step, place, told = finish(tmp_path, layout, disks)
    assert place == "disks" and process.EVERY < step <= DIES_AT and step % process.LOCAL == 0, (step, place)
    assert f"process {layout[0] - 1} gets" in told
    same(tmp_path, undisturbed(layout))


@pytest.mark.long
def test_without_a_replica_a_lost_disk_costs_the_way_back_to_the_store(undisturbed, tmp_path):
    disks = disks_of(tmp_path, ALONE)
    killed(tmp_path, ALONE, disks, victim=1)
    shutil.rmtree(disks[1])
    step, place, told = finish(tmp_path, ALONE, disks)
    assert (step, place) == (process.EVERY, "store") and "not whole or" in told
    same(tmp_path, undisturbed(ALONE))


@pytest.mark.long
def test_each_process_sums_what_it_wrote_and_one_seal_holds_it_all(undisturbed):
    newest = undisturbed(ALONE) / "checkpoints" / str(process.STEPS)
    seal = integrity.seal_of(epath.Path(newest))
    sealed = integrity.read_seal(seal)
    assert sealed.keys() == {str(p.relative_to(newest)) for p in newest.rglob("*") if p.is_file()}
    assert all(any(f"ocdbt.process_{i}/" in name for name in sealed) for i in range(2))
    assert integrity.damage(epath.Path(newest)) is None
    assert [path.name for path in seal.parent.iterdir() if "part" in path.name] == []


@pytest.mark.long
def test_a_flipped_bit_on_one_disk_is_noticed_and_the_next_best_is_taken_by_all(undisturbed, tmp_path):
    layout = REPLICAS["two"]
    disks = disks_of(tmp_path, layout)
    killed(tmp_path, layout, disks, victim=1)
    newest = max((p for p in (disks[0] / "process-0").iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
    shutil.rmtree(disks[1])
    arrays = newest / host_disk.ARRAYS
    data = bytearray(arrays.read_bytes())
    data[len(data) // 2] ^= 1
    arrays.write_bytes(data)
    step, place, told = finish(tmp_path, layout, disks)
    assert place == "disks" and process.EVERY < step < int(newest.name) and "is damaged and removed" in told
    same(tmp_path, undisturbed(layout))
