"""`osjax train` with its checkpoints on S3, as moto's server speaks it: killed, moved to another machine, cut off."""

import json
import os
import signal
from pathlib import Path

import pytest

from osjax import object_store
from osjax.__main__ import main
from osjax.data import clips, dataset, table
from osjax.training import copies
from tests import object_stores
from tests.e2e import faults
from tests.forked import Forked
from tests.object_stores import DOWN, SLOW

pytest.importorskip("moto.server")
pytest.importorskip("s3fs")
pytestmark = pytest.mark.timeout(600)
LAST = 18  # step of the last stage


def train(argv: list[str]) -> int:
    """`osjax train` in an environment, which a fork does not have from its parent. argv: it, and the flags."""
    os.environ.update(json.loads(argv[0]))
    return main(["train", "--config=tests/e2e/two_stages.py", *argv[1:]])


def start(workdir: Path, flags, *more: str) -> Forked:
    environment = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "OSJAX_"))}
    given = [f"--config.{name}={value}" for name, value in {**flags, "workdir": workdir}.items()]
    return Forked(train, [json.dumps(environment), *given, *more], workdir.parent / f"{workdir.name}.logs")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with object_stores.s3() as (store, environment), pytest.MonkeyPatch.context() as patch:
        for name, value in {**environment, "AWS_MAX_ATTEMPTS": "1"}.items():
            patch.setenv(name, value)
        patch.setenv("OSJAX_DATA_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield store


@pytest.fixture(scope="module")
def flags(store, tmp_path_factory):
    """A data set on the store, and compiled programs that are kept."""
    path = clips.write_clips(tmp_path_factory.mktemp("clips"), clips.specs(24, 0, clips.combinations()), 32, 8, 8)
    about = {"num_frames": 8, "height": 32, "width": 32, "fps": 8.0}
    source = dataset.build_clips([{**row, **about} for row in table.read(path)], "s3://bucket/clips")
    cache = tmp_path_factory.mktemp("programs")
    return {"compilation_cache": cache, "source": source}


def half_copied(url: str) -> bool:
    """Whether a checkpoint is on the store and another one on its way."""
    sealed = set(map(str, copies.steps(url)))
    return bool(sealed) and not {name.split("/")[0] for name in object_store.sizes(url)} <= sealed


def test_a_run_killed_while_it_copies_goes_on_on_another_machine_and_all_losses_are_those_of_one_undisturbed(
    store, flags, tmp_path
):
    assert start(tmp_path / "whole", flags).finish(300).poll() == 0
    there = "s3://bucket/killed"
    flags = {**flags, "checkpoints": there}
    last = f"{there}/stage1_t2v/checkpoints"
    killed = start(tmp_path / "first", flags)
    with store.failing(lambda method, path: SLOW if "stage1_t2v/checkpoints.seals" in path else None):
        killed.until(lambda: half_copied(last))
    assert half_copied(last)
    killed.send_signal(signal.SIGKILL)
    killed.wait(60)
    assert copies.steps(f"{there}/autoencoder/checkpoints")[-1] == 6
    # A new machine has nothing but the store.
    done = start(tmp_path / "second", flags).finish(300)
    assert done.poll() == 0, done.stderr[-2000:]
    assert "is brought from s3://bucket/killed/autoencoder" in done.stderr
    assert copies.steps(last)[-1] == LAST and len(copies.steps(last)) <= 2
    whole, again = (dict(faults.losses(tmp_path / name)["stage1_t2v"]) for name in ("whole", "second"))
    assert 0 not in again and all(whole[step] == loss for step, loss in again.items())
    assert json.loads((tmp_path / "second/model.json").read_text())["denoiser"]["checkpoints"]


def test_an_outage_while_training_holds_nothing_up_and_the_last_checkpoint_is_there_in_the_end(store, flags, tmp_path):
    there = "s3://bucket/outage"
    run = start(tmp_path / "run", {**flags, "checkpoints": there})
    run.until(lambda: faults.losses(tmp_path / "run").get("autoencoder"))
    with store.failing(lambda method, path: DOWN):
        run.until(lambda: len(faults.losses(tmp_path / "run").get("autoencoder", ())) >= 6)
        run.until(lambda: "tried again" in run.stderr)
    assert run.finish(300).poll() == 0, run.stderr[-2000:]
    told = [line for line in run.stderr.splitlines() if "not copied yet" in line]
    assert told and there in told[0] and "answers again" in run.stderr and "Traceback" not in run.stderr
    assert copies.steps(f"{there}/stage1_t2v/checkpoints")[-1] == LAST


@pytest.mark.parametrize("wrong", (403, DOWN))
@pytest.mark.parametrize("more", ((), ("--dry-run",)))
def test_a_store_that_refuses_at_the_start_is_one_line_with_the_url_and_nothing_is_made(
    store, flags, tmp_path, wrong, more
):
    with store.failing(lambda method, path: wrong):
        run = start(tmp_path / "run", {**flags, "checkpoints": "s3://bucket/refused"}, *more)
        assert run.finish(200).poll() in (1, 2)
    lines = run.stderr.splitlines()
    assert all(line.startswith("osjax: ") and "s3://bucket/" in line for line in lines) and lines, run.stderr
    assert "Traceback" not in run.stderr and not (tmp_path / "run/metrics.jsonl").exists()
    assert not object_store.sizes("s3://bucket/refused")
