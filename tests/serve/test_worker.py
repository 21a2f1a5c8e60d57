"""The process of the models, here in this one: what it holds, what it makes together, on a mesh, with adapters."""

from dataclasses import asdict, replace
from multiprocessing import Pipe

import jax
import numpy as np
import pytest

from osjax.data import video
from osjax.parts import sampling
from osjax.parts.stage import MeshKeys
from osjax.serve import app
from osjax.serve.worker import Order, Worker
from tests.sampling import tiny

SETTINGS = asdict(tiny.SETTINGS.changed(steps=2))


@pytest.fixture(scope="module")
def keys(workdir):
    cfg = sampling.keys()
    cfg.workdir, cfg.compilation_cache = str(workdir), ""
    return sampling.of_config(cfg)


def make(worker, pipe, folder, *asked) -> tuple[dict[str, np.ndarray], list]:
    """(videos by id, messages) of one group. asked: (id, model, seed)."""
    orders = [
        Order(id, model, "a", {**SETTINGS, "seed": seed}, (), str(folder / id), {}, None) for id, model, seed in asked
    ]
    worker.serve(("make", orders))
    messages = []
    while pipe.poll():
        messages.append(pipe.recv())
    assert not [value for kind, value in messages if kind == "failed"], messages
    return {order.id: video.decode(folder / order.id / "video.mp4") for order in orders}, messages


def test_the_model_that_was_used_longest_ago_makes_room(keys, tmp_path):
    pipe, theirs = Pipe()
    worker = Worker(theirs, {name: keys for name in "abc"}, 2)
    loaded = []
    for n, name in enumerate("abacab"):
        _, messages = make(worker, pipe, tmp_path, (str(n), name, 0))
        loaded.append([value[0] for kind, value in messages if kind == "loaded"])
    assert loaded == [["a"], ["b"], [], ["c"], [], ["b"]]  # c took the place of b, not of a


def test_a_mesh_of_all_devices_makes_videos_together_that_are_those_of_one_device(keys, tmp_path):
    assert jax.device_count() == 8
    pipe, theirs = Pipe()
    worker = Worker(theirs, {"one": keys, "all": replace(keys, mesh=MeshKeys(data=-1))}, 1)
    together, messages = make(worker, pipe, tmp_path / "all", *((str(n), "all", n) for n in range(3)))
    assert ("loaded", ("all", 8)) in messages  # rows: so many does the queue send at once
    steps = [value[:2] for kind, value in messages if kind == "step"]
    assert steps == [(str(n), step) for step in (1, 2) for n in range(3)]  # one loop for all
    for n in range(2):
        alone, _ = make(worker, pipe, tmp_path / "one", (str(n), "one", n))
        assert np.abs(alone[str(n)].astype(int) - together[str(n)]).max() <= 2
    assert np.abs(together["0"].astype(int) - together["1"]).max() > 5


def test_adapters_are_a_model_of_their_own_and_int8_and_offload_go_with_them(keys, adapters, tmp_path):
    pipe, theirs = Pipe()
    slim = replace(keys, int8=True, offload=True)
    made = app.variants({"tiny": keys, "slim": slim}, {"star": (str(adapters), 1.0), "faint": (str(adapters), 0.0)})
    assert sorted(made) == ["slim", "slim/faint", "slim/star", "tiny", "tiny/faint", "tiny/star"]
    worker = Worker(theirs, made, 1)
    names = ("tiny", "tiny/faint", "tiny/star", "slim/star")
    videos = {name: make(worker, pipe, tmp_path, (name.replace("/", "-"), name, 0))[0].popitem()[1] for name in names}
    np.testing.assert_array_equal(videos["tiny"], videos["tiny/faint"])
    assert np.abs(videos["tiny"].astype(int) - videos["tiny/star"]).mean() > 1
    assert np.abs(videos["slim/star"].astype(int) - videos["tiny/star"]).mean() < 3
