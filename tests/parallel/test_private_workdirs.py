"""`osjax train` over two hosts with workdirs on disks of their own: what one measures both know, or both end."""

import json
import shutil

import numpy as np
import pytest

from osjax.data import dataset
from osjax.parts import latent_scale
from osjax.parts.clips import ClipSet
from osjax.stages import data as train_data
from osjax.training import metrics
from tests.e2e.started import Started
from tests.parallel import processes

pytestmark = pytest.mark.timeout(600)
SHORT = {
    "stages.autoencoder.steps": 2,
    "stages.autoencoder.checkpoint.every": 0,
    "stages.autoencoder.evaluate.every": 0,
    "stages.autoencoder.evaluate.batches": 2,
    "stages.stage1_t2v.steps": 2,
    "stages.stage1_t2v.checkpoint.every": 0,
    "stages.stage1_t2v.data.cached": False,
}


def run(folder, hosts, status=0, **common):
    """Two processes of a run, each with overrides of its own; what they said in the end."""
    address = f"localhost:{processes.free_port()}"
    started = []
    for index, own in enumerate(hosts):
        flags = {**SHORT, "compilation_cache": "", **common, **own}
        argv = ["train", "--config=tests/e2e/two_stages.py", f"--coordinator={address}", "--processes=2"]
        argv += [f"--process={index}", *(f"--config.{key}={value}" for key, value in flags.items())]
        started.append(Started(argv, folder / f"log{index}"))
    try:
        assert [process.wait(400) for process in started] == [status] * 2, started[0].stderr[-3000:]
    finally:
        for process in started:
            process.kill()
    return [[line for line in process.stderr.splitlines() if line.startswith("osjax:")] for process in started]


@pytest.mark.long
def test_both_normalise_latents_by_what_one_measured_and_a_new_host_gets_it_again(tmp_path):
    store = {"checkpoints": tmp_path / "store", "compilation_cache": tmp_path / "cache"}
    first, second, new = tmp_path / "host0", tmp_path / "host1", tmp_path / "host2"
    run(tmp_path, [{"workdir": first}, {"workdir": second}], **store)
    told = (first / "autoencoder" / latent_scale.FILE).read_text()
    assert (second / "autoencoder" / latent_scale.FILE).read_text() == told
    assert not np.allclose(json.loads(told)["scale"], 1, atol=1e-3)  # the identity would go unnoticed
    assert (first / "metrics.jsonl").exists() and not (second / "metrics.jsonl").exists()
    shutil.rmtree(second)  # the host is gone; another one takes its place
    run(tmp_path, [{"workdir": first}, {"workdir": new}], **{**store, "stages.stage1_t2v.steps": 4})
    assert (new / "autoencoder" / latent_scale.FILE).read_text() == told
    steps = [line["step"] for line in metrics.read(first / "metrics.jsonl") if line["stage"] == "stage1_t2v"]
    assert steps == [0, 1, 2, 3]


def test_checkpoints_in_a_workdir_that_hosts_do_not_share_are_refused_and_the_host_is_named(tmp_path):
    said = run(tmp_path, [{"workdir": tmp_path / "a"}, {"workdir": tmp_path / "b"}], status=2)
    assert all(len(lines) == 1 and "is another folder for process 1 on" in lines[0] for lines in said), said
    assert all("config.checkpoints" in lines[0] for lines in said)


@pytest.mark.long
def test_latents_in_a_workdir_that_hosts_do_not_share_are_refused(tmp_path):
    cached = {"checkpoints": tmp_path / "store", "stages.stage1_t2v.data.cached": True}
    said = run(tmp_path, [{"workdir": tmp_path / "a"}, {"workdir": tmp_path / "b"}], status=2, **cached)
    assert all("b is another folder" in lines[0] or "a is another folder" in lines[0] for lines in said), said
    assert all("set data.cached of stage1_t2v to False" in lines[0] for lines in said)


def test_a_host_without_the_data_set_is_named_by_all(tmp_path):
    made = train_data.OwnData(None, ClipSet(train=24, size=32), tmp_path).path("train")
    common = {"workdir": tmp_path / "run"}
    said = run(tmp_path, [{"source": made}, {"source": tmp_path / "none"}], status=2, **common)
    assert all(any("process 1 on" in line and "does not exist" in line for line in lines) for lines in said), said


@pytest.mark.long
def test_a_host_with_another_data_set_is_named_by_all(tmp_path):
    made = [
        train_data.OwnData(None, ClipSet(train=24, size=32, seed=seed), tmp_path / str(seed)).path("train")
        for seed in range(2)
    ]
    assert dataset.open_source(made[0]).identity() != dataset.open_source(made[1]).identity()
    said = run(tmp_path, [{"source": path} for path in made], status=1, workdir=tmp_path / "run")
    assert all("the data set of process 1 on" in lines[-1] for lines in said), said
