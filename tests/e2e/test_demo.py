"""`osjax demo --quick` in miniature, as a user runs it: MP4 files, every stage, killed and started again, bad input."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from osjax.__main__ import main
from osjax.data.clips import WORDS
from osjax.data.video import decode
from osjax.training.metrics import read
from tests import compiler_flags
from tests.e2e.started import Started

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(1500)  # several processes, each compiling every stage
STAGES = ("stage1_t2v_low", "stage2_i2v_low", "stage3_i2v_high")
TINY = {
    "clips.train": 12,
    "clips.held_out": 4,
    "clips.size": 64,
    "report.prompts": 2,
    "report.i2v": 2,
    "report.batch": 4,
    "stages.autoencoder.steps": 4,
    "stages.autoencoder.data.buckets": '(("64px", 8, 1.0, 2),)',
    "stages.autoencoder.losses.crop": 16,
    "stages.autoencoder.optimizer.warmup_steps": 1,
}
for _name in STAGES:
    TINY |= {
        f"stages.{_name}.{key}": value
        for key, value in {
            "steps": 3,
            "data.buckets": '(("64px", 8, 1.0, 2),)',
            "model.hidden_size": 32,
            "model.num_heads": 2,
            "model.axes_dim": "(4,6,6)",
            "model.depth": 1,
            "model.depth_single_blocks": 1,
            "optimizer.warmup_steps": 1,
            "sample.steps": 2,
            "sample.height": 64,
            "sample.width": 64,
        }.items()
    }


def argv(workdir, **overrides):
    settings = {**TINY, "workdir": workdir, **overrides}
    return ["demo", "--quick", *(f"--config.{key}={value}" for key, value in settings.items())]


def run_as_users_do(arguments):
    """`python -m osjax`, an interpreter of its own from its first line on."""
    command = [sys.executable, "-m", "osjax", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=800)


def environment():
    others = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    return {**others, "XLA_FLAGS": compiler_flags.devices(1), "JAX_PLATFORMS": "cpu"}


def of_stage(workdir, name):
    """The lines of a stage; none while the file is being started."""
    return [line for line in read(workdir / "metrics.jsonl") if line["stage"] == name]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, compiled):
    """A demo that is killed in its first diffusion stage and then started again."""
    workdir = tmp_path_factory.mktemp("demo")
    first = Started(argv(workdir, compilation_cache=compiled), workdir / "logs")
    first.until(lambda: of_stage(workdir, STAGES[0]))
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL, first.stderr[-2000:]
    autoencoder = of_stage(workdir, "autoencoder")
    again = run_as_users_do(argv(workdir, compilation_cache=compiled))
    assert again.returncode == 0, again.stderr[-2000:]
    assert of_stage(workdir, "autoencoder") == autoencoder, "a finished part was done again"
    return workdir, again


def test_report_holds_every_figure(finished):
    workdir, _ = finished
    report = json.loads((workdir / "report.json").read_text())
    assert report["prompt_match"].keys() == {*WORDS, "all", "steady", "samples"}
    assert report["prompt_match"]["samples"] == 3 * 2  # each prompt at every motion score
    assert 0 <= report["motion_order"] <= 1 and 0 < report["ae_edges"] < 0.5
    assert [stage["name"] for stage in report["stages"]] == ["autoencoder", *STAGES]
    assert [stage["steps"] for stage in report["stages"]] == [4, 3, 3, 3]
    assert 5 < report["ae_psnr_db"] < 25  # four steps teach an autoencoder nothing
    assert 3 < report["i2v_first_frame_psnr_db"] < 25
    assert 0 < report["peak_rss_gb"] < 6 and 0 < report["processor_seconds"]
    parts = report["seconds_by_part"]
    assert set(parts) == {"data", "autoencoder", *STAGES, "samples"} and report["seconds"] == sum(
        p[0] for p in parts.values()
    )


def test_metrics_have_one_line_a_step_after_a_kill(finished):
    workdir, _ = finished
    for name, steps in zip(("autoencoder", *STAGES), (4, 3, 3, 3), strict=True):
        assert [line["step"] for line in of_stage(workdir, name)] == list(range(steps))


def test_samples_are_playable_and_pages_name_files_that_exist(finished):
    workdir, _ = finished
    files = sorted((workdir / "samples").rglob("*.mp4"))
    assert len(files) == 3 * 2 + 2
    assert decode(files[0]).shape == (8, 64, 64, 3)
    settings = json.loads(files[0].with_suffix(".json").read_text())
    assert settings["mode"] == "i2v_head" and settings["steps"] == 2
    asked = {json.loads(file.with_suffix(".json").read_text())["motion_score"] for file in files}
    assert asked == {1, 4, 7}
    page = (workdir / "report.html").read_text()
    for name in ("contact_sheet.png", "contact_sheet_i2v.png", "training.svg"):
        assert name in page and (workdir / name).stat().st_size > 1000


def test_a_finished_demo_only_reports_again(finished, compiled):
    workdir, _ = finished
    before = (workdir / "metrics.jsonl").read_text()
    done = Started(argv(workdir, compilation_cache=compiled), workdir / "logs").finish(600)
    assert done.poll() == 0, done.stderr[-2000:]
    assert (workdir / "metrics.jsonl").read_text() == before


@pytest.mark.parametrize(
    "overrides,message",
    [
        ({"stages.stage3_i2v_high.sample.height": 36}, "height 36 is not a multiple of the autoencoder's spatial"),
        ({f"stages.{STAGES[0]}.data.buckets": '(("64px",6,1.0,8),)'}, "6 frames do not fit the autoencoder's temporal"),
        ({f"stages.{STAGES[0]}.data.buckets": '(("64qx",8,1.0,8),)'}, "resolution '64qx' is not understood"),
        ({"stages.autoencoder.mesh.fsdp": 3}, "does not fit 8 devices"),
        ({"stages.stage1_t2v_low.model.in_channels": 16}, "model.in_channels 16 does not fit"),
        ({"stages.stage2_i2v_low.start.stage": "stage9"}, "start.stage 'stage9' is none of the stages before it"),
        ({"stages.stage1_t2v_low.stepz": 3}, "stages.stage1_t2v_low.steps"),
    ],
)
def test_bad_settings_are_one_line_before_any_work(tmp_path, overrides, message, capsys):
    eight = {key: value.replace("2),)", "8),)") for key, value in TINY.items() if key.endswith("buckets")}  # devices
    status = main(argv(tmp_path / "new", **{**eight, **overrides}))
    error = capsys.readouterr().err
    assert status in (1, 2) and message in error and len(error.splitlines()) == 1
    assert not (tmp_path / "new" / "data").exists()
