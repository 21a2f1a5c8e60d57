"""`osjax train` as a user runs it: a curriculum that may be killed anywhere, moved, stopped, and asked for nonsense."""

import json
import shutil
import time

import numpy as np
import pytest

from osjax.__main__ import main
from osjax.training import metrics
from tests.e2e import faults

pytestmark = pytest.mark.timeout(1200)
STEPS = {"autoencoder": 16, "stage1_t2v": 16, "stage2_i2v": 8, "stage3_i2v": 8}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compiled):
    """(workdir, seconds) of a run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("whole")
    started = time.monotonic()
    faults.finish(workdir, compilation_cache=compiled)
    return workdir, time.monotonic() - started


def test_every_stage_writes_one_line_a_step_and_starts_from_the_one_before(whole):
    workdir, _ = whole
    found = faults.losses(workdir)
    assert list(found) == list(STEPS)
    assert {name: [step for step, _ in lines] for name, lines in found.items()} == {
        name: list(range(steps)) for name, steps in STEPS.items()
    }
    first = {name: np.mean([loss for _, loss in lines[:2]]) for name, lines in found.items()}
    last = {name: np.mean([loss for _, loss in lines[-2:]]) for name, lines in found.items()}
    assert last["autoencoder"] < 0.8 * first["autoencoder"]
    assert first["stage2_i2v"] < first["stage1_t2v"]  # new weights would begin where stage 1 began
    raw = (workdir / "metrics.jsonl").read_text().splitlines()[0]
    assert len(str(json.loads(raw)["loss"])) > 10  # full precision
    described = json.loads((workdir / "model.json").read_text())
    assert described["denoiser"]["checkpoints"] == "stage3_i2v/checkpoints"


def test_a_finished_run_trains_nothing_again(whole, compiled):
    workdir, _ = whole
    before = (workdir / "metrics.jsonl").read_bytes()
    done = faults.finish(workdir, compilation_cache=compiled)
    assert (workdir / "metrics.jsonl").read_bytes() == before and "finished: autoencoder" in done.stdout


@pytest.fixture(scope="module")
def short(compiled):
    """Flags of a run of two stages that saves on request and at its end."""
    steps = {"stages.autoencoder.steps": 2, "stages.stage1_t2v.steps": 18, "stages.stage1_t2v.checkpoint.every": 0}
    return {"config": "tests/e2e/two_stages.py", "compilation_cache": compiled, **steps}


@pytest.fixture(scope="module")
def stay(short, tmp_path_factory):
    """Workdir of such a run that nothing disturbed, on eight devices."""
    workdir = tmp_path_factory.mktemp("stay")
    faults.finish(workdir, devices=8, **short)
    return workdir


def test_sigterm_saves_and_exits_for_a_restart_that_may_have_other_devices(stay, short, tmp_path):
    """Within 1e-6 of the run that stayed: only the order of sums over devices differs."""
    move, stopped = tmp_path / "move", []
    for devices, steps in ((8, 4), (4, 9)):
        status, error = faults.stop_after(move, "stage1_t2v", steps, devices, **short)
        lines = faults.losses(move)["stage1_t2v"]
        assert status == 75 and f"stage1_t2v: stopped at step {len(lines)}, saved" in error, error[-2000:]
        stopped.append(len(lines))
    assert 4 <= stopped[0] < stopped[1] < 18
    faults.finish(move, devices=2, **short)
    got, want = (np.array(faults.losses(run)["stage1_t2v"]) for run in (move, stay))
    np.testing.assert_array_equal(got[:, 0], want[:, 0])
    np.testing.assert_array_equal(got[: stopped[0], 1], want[: stopped[0], 1])  # the same mesh, the same bits
    np.testing.assert_allclose(got[:, 1], want[:, 1], rtol=1e-6)
    assert np.abs(np.diff(want[:, 1])).min() > 1e-6  # one batch more or fewer would show


def test_another_config_than_that_of_the_checkpoint_is_named(stay, short, tmp_path):
    longer = {**short, "stages.stage1_t2v.steps": 20}
    workdir = shutil.copytree(stay, tmp_path / "run")
    done = faults.finish(workdir, **longer, **{"stages.stage1_t2v.optimizer.lr": 2e-3})
    assert "optimizer.lr was 0.001, is 0.002" in done.stderr and "steps" not in done.stderr.split("was saved with")[0]
    assert len(faults.losses(workdir)["stage1_t2v"]) == 20
    wider = {"stages.stage1_t2v.model.hidden_size": 64, "stages.stage1_t2v.model.axes_dim": "(8,12,12)"}
    status, error = faults.stop_after(workdir, "no such stage", 1, **{**longer, **wider, "stages.stage1_t2v.steps": 22})
    assert status == 2 and "does not fit this config" in error and "Traceback" not in error


def test_held_out_losses_samples_dashboards_and_a_report_come_on_request(short, tmp_path, capsys):
    stage = "stages.stage1_t2v"
    flags = {f"{stage}.steps": 9, f"{stage}.evaluate.every": 4, f"{stage}.evaluate.prompts": "('a red circle',)"}
    faults.finish(tmp_path, **{**short, **flags, "clips.held_out": 16, "tensorboard": True})
    lines = [line for line in metrics.read(tmp_path / "metrics.jsonl") if line["stage"] == "stage1_t2v"]
    found = {line["step"]: line["eval_loss"] for line in lines if "eval_loss" in line}
    assert list(found) == [0, 4, 8] and found[8] < found[0]
    assert {"grad_norm/img_in", "update_norm", "batch", "eval_loss_t0.9"} <= lines[4].keys()
    assert lines[4]["batch"] == "8x4x16x16x4"  # the latents of the bucket
    samples = sorted((tmp_path / "samples" / "stage1_t2v").rglob("*.mp4"))
    assert [path.parent.name for path in samples] == ["step-0000000", "step-0000004", "step-0000008"]
    (events,) = (tmp_path / "tensorboard" / "stage1_t2v").iterdir()
    written = events.read_bytes()
    assert all(word in written for word in (b"eval_loss_t0.9", b"GIF89a", b"a red circle", b"data_set", b"hidden_size"))
    assert main(["report", str(tmp_path)]) == 0
    page = (tmp_path / "run.html").read_text()
    first, now = (f"{(a['loss'] + b['loss']) / 2:.4f}" for a, b in (lines[:2], lines[-2:]))  # a quarter of nine steps
    assert f"<td>{first}</td><td>{now}</td>" in page and first != now
    assert "stage1_t2v" in page and str(samples[0].relative_to(tmp_path)) in page
    assert main(["report", str(tmp_path / "nothing")]) == 1
    assert "holds no metrics.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize(
    "overrides, words",
    [
        ({"stages.stage1_t2v.optimizer.schedule": "cosin"}, "stage1_t2v: optimizer: unknown schedule 'cosin'"),
        (
            {"stages.stage1_t2v.autoencoder.stage": "none"},
            "autoencoder.stage 'none' is no autoencoder stage before this one: autoencoder is",
        ),
        ({"order": "autoencoder,stage1_t2v"}, "must name every stage once"),
        ({"clips.train": 0}, "autoencoder: no data.source"),
        ({"stages.stage1_t2v.start.weights": "/nowhere.safetensors"}, "/nowhere.safetensors does not exist"),
        ({"stages.stage2_i2v.modes.i2v_head": -1.0}, "condition mode i2v_head has weight -1.0"),
        ({"stages.stage1_t2v.steps": 0}, "stage1_t2v: steps is 0"),
        ({"stages.stage1_t2v.autoencoder.at_once": -1}, "stage1_t2v: autoencoder.at_once is below 0"),
        ({"stages.stage1_t2v.autoencoder.dtype": "float8"}, "stage1_t2v: autoencoder.dtype is 'float8'"),
    ],
)
def test_a_dry_run_names_what_cannot_work_and_makes_nothing(overrides, words, tmp_path, capsys):
    flags = [f"--config.{key}={value}" for key, value in overrides.items()]
    status = main(["train", "--config=configs/smoke.py", f"--workdir={tmp_path / 'new'}", "--dry-run", *flags])
    error = capsys.readouterr().err
    assert status == 2 and words in error and all(line.startswith("osjax: ") for line in error.splitlines())
    assert not (tmp_path / "new").exists()


def test_a_dry_run_prints_the_plan(tmp_path, capsys):
    assert main(["train", "--config=configs/smoke.py", f"--workdir={tmp_path / 'new'}", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "stage2_i2v: diffusion, 8 steps from stage1_t2v; 64px x 8 (batch 8)" in out
    assert "parameters" in out and not (tmp_path / "new").exists()


def test_attention_that_these_devices_do_not_have_is_refused_before_any_stage_begins(tmp_path, capsys):
    flag = "--config.stages.stage3_i2v.model.attention=flash"
    assert main(["train", "--config=configs/smoke.py", f"--workdir={tmp_path / 'new'}", flag]) == 2
    error = capsys.readouterr().err
    assert 'stage3_i2v: flash attention needs a GPU or a TPU, this is cpu: use "blockwise"' in error
    assert len(error.splitlines()) == 1 and not (tmp_path / "new").exists()
