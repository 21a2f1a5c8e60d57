"""Two loaders in processes of their own share out every batch, are killed, and go on as one."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from osjax.__main__ import main
from osjax.data import clips, table
from tests.data import host_process

ROOT = Path(__file__).parents[2]
STEPS = 24


@pytest.fixture(scope="module")
def data_set(tmp_path_factory):
    """14 videos of 8 frames and 9 images, built by the command line."""
    folder = tmp_path_factory.mktemp("set")
    found = table.read(clips.write_clips(folder, clips.specs(14, 0, clips.combinations()), 64, 8, 8))
    for n in range(9):
        path = folder / f"image{n}.png"
        Image.fromarray(np.random.default_rng(n).integers(0, 255, (80, 72, 3), dtype=np.uint8)).save(path)
        found.append({"path": path.name, "text": f"image {n}"})
    table.write_csv(folder / "all.csv", found)
    assert main(["data", "build", str(folder / "all.csv"), str(folder / "built")]) == 0
    return next((folder / "built").rglob("dataset_info.json")).parent


@pytest.fixture(scope="module")
def whole(data_set):
    iterator = host_process.batches(data_set)
    return [host_process.rows(next(iterator)) for _ in range(STEPS)]


def start(data_set, state, number, count, steps):
    command = [sys.executable, "-m", "tests.data.host_process", *map(str, (data_set, state, number, count, steps))]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_images_and_videos_come_in_batches_of_their_own(whole):
    kinds = {frozenset("image" in text for _, text, _ in batch) for batch in whole}
    assert kinds == {frozenset({True}), frozenset({False})}


def test_two_hosts_killed_in_the_middle_go_on_as_one_with_the_very_next_batch(data_set, whole, tmp_path):
    state = tmp_path / "state.json"
    hosts = [start(data_set, state, number, 2, 10_000) for number in range(2)]
    seen = [[json.loads(host.stdout.readline()) for _ in range(9)] for host in hosts]
    for host in hosts:
        host.kill()
        host.communicate()
    for step, (one, other) in enumerate(zip(*seen, strict=True)):
        assert one["state"] == other["state"]
        assert one["rows"] == whole[step][0::2] and other["rows"] == whole[step][1::2]
    assert {len(batch) for batch in whole} == {2, 4}

    state.write_text(json.dumps(seen[0][-1]["state"]))  # as a checkpoint after eight steps holds it
    alone = start(data_set, state, 0, 1, STEPS - 8)
    left = [json.loads(line)["rows"] for line in alone.communicate(timeout=120)[0].splitlines()]
    assert left == whole[8:] and left[: STEPS - 9] != whole[9:]
