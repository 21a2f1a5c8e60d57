"""`osjax demo` in miniature, as a user runs it: real MP4 files, every stage, killed and started again, bad input."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from osjax.data.video import decode
from osjax.training.metrics import read

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(1500)  # several processes, each compiling every stage
STAGES = ("stage1_t2v_low", "stage2_i2v_low", "stage3_i2v_high")
TINY = {
    "data.train_clips": 12,
    "data.held_out_clips": 4,
    "data.size": 64,
    "data.low": 32,
    "data.high": 48,
    "autoencoder.steps": 4,
    "autoencoder.batch": 2,
    "autoencoder.crop": 16,
    "autoencoder.optimizer.warmup_steps": 1,
    "autoencoder.optimizer.decay_steps": 4,
    "model.hidden_size": 32,
    "model.num_heads": 2,
    "model.axes_dim": "(4,6,6)",
    "model.depth": 1,
    "model.depth_single_blocks": 1,
    "sample.prompts": 4,
    "sample.i2v": 2,
    "sample.steps": 2,
    "sample.batch": 4,
    **{f"stages.{name}.steps": 3 for name in STAGES},
    **{f"stages.{name}.batch": 2 for name in STAGES},
    **{f"stages.{name}.optimizer.warmup_steps": 1 for name in STAGES},
    **{f"stages.{name}.optimizer.decay_steps": 3 for name in STAGES},
}


def command(workdir, **overrides):
    flags = [f"--config.{key}={value}" for key, value in {**TINY, "workdir": workdir, **overrides}.items()]
    return [sys.executable, "-m", "osjax", "demo", *flags]


def environment():
    flags = os.environ.get("XLA_FLAGS", "").replace("--xla_force_host_platform_device_count=8", "").strip()
    others = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}  # an empty XLA_FLAGS is an error
    return {**others, **({"XLA_FLAGS": flags} if flags else {}), "JAX_PLATFORMS": "cpu"}


def run(workdir, timeout=800, **overrides):
    process = command(workdir, **overrides)
    return subprocess.run(process, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=timeout)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A demo that is killed in its first diffusion stage and then started again."""
    workdir = tmp_path_factory.mktemp("demo")
    errors = (workdir / "first.log").open("w")
    first = subprocess.Popen(command(workdir), cwd=ROOT, env=environment(), stderr=errors)
    metrics = workdir / "stage1_t2v_low" / "metrics.jsonl"
    deadline = time.monotonic() + 600
    while not metrics.exists() and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert metrics.exists(), (workdir / "first.log").read_text()[-2000:]
    autoencoder = (workdir / "autoencoder" / "metrics.jsonl").read_text()
    again = run(workdir)
    assert again.returncode == 0, again.stderr[-2000:]
    assert (workdir / "autoencoder" / "metrics.jsonl").read_text() == autoencoder, "a finished part was done again"
    return workdir, again


def test_report_holds_every_figure(finished):
    workdir, _ = finished
    report = json.loads((workdir / "report.json").read_text())
    assert report["prompt_match"].keys() == {"colour", "direction", "shape", "samples"}
    assert report["prompt_match"]["samples"] == 4
    assert [stage["name"] for stage in report["stages"]] == ["autoencoder", *STAGES]
    assert [stage["steps"] for stage in report["stages"]] == [4, 3, 3, 3]
    assert 5 < report["ae_psnr_db"] < 25  # four steps teach an autoencoder nothing
    assert 3 < report["i2v_first_frame_psnr_db"] < 25
    assert 0 < report["peak_rss_gb"] < 6 and report["seconds"] > 0


def test_metrics_have_one_line_a_step_after_a_kill(finished):
    workdir, _ = finished
    for name, steps in zip(("autoencoder", *STAGES), (4, 3, 3, 3), strict=True):
        assert [line["step"] for line in read(workdir / name / "metrics.jsonl")] == list(range(steps))


def test_samples_are_playable_and_pages_name_files_that_exist(finished):
    workdir, _ = finished
    files = sorted((workdir / "samples").rglob("*.mp4"))
    assert len(files) == 6
    assert decode(files[0]).shape == (8, 48, 48, 3)
    settings = json.loads(files[0].with_suffix(".json").read_text())
    assert settings["mode"] == "i2v_head" and settings["steps"] == 2
    page = (workdir / "report.html").read_text()
    for name in ("contact_sheet.png", "contact_sheet_i2v.png", "training.png"):
        assert name in page and (workdir / name).stat().st_size > 1000


def test_a_finished_demo_only_reports_again(finished):
    workdir, _ = finished
    before = (workdir / "stage3_i2v_high" / "metrics.jsonl").read_text()
    assert run(workdir).returncode == 0
    assert (workdir / "stage3_i2v_high" / "metrics.jsonl").read_text() == before


@pytest.mark.parametrize(
    "overrides,message",
    [
        ({"data.low": 40}, "height 40 is not a multiple of the autoencoder's spatial stride 16"),
        ({"data.frames": 6}, "6 frames do not fit the autoencoder's temporal stride 4"),
        ({"mesh.fsdp": 3}, "does not fit 1 devices"),
        ({"model.in_channels": 16}, "model.in_channels 16 does not fit"),
        ({"stages.stage1_t2v_low.resolution": "middle"}, "'middle' is not one of low, high"),
        ({"stages.stage1_t2v_low.stepz": 3}, "stages.stage1_t2v_low.steps"),
    ],
)
def test_bad_settings_are_one_line_before_any_work(tmp_path, overrides, message):
    result = run(tmp_path / "new", timeout=200, **overrides)
    assert result.returncode in (1, 2)
    assert message in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "new" / "data").exists()
