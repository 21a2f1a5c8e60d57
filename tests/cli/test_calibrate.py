"""`osjax calibrate`, and what `osjax sample` makes of what it keeps, as a user runs them."""

import json
import sys

import pytest

from osjax.__main__ import main
from tests.sampling import files, trained


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return trained.write(tmp_path_factory.mktemp("workdir"))


def run(verb, *flags, status=0):
    assert main([verb, "--cache=", *map(str, flags)]) == status


def test_a_model_is_calibrated_once_and_samples_skip_blocks_by_it(workdir, tmp_path, capsys, monkeypatch):
    asked = f"--workdir={workdir}", "--prompt=a red circle", "--steps=8"
    run("sample", *asked, "--reuse=magcache", f"--output={tmp_path}", status=1)
    assert "run osjax calibrate once" in capsys.readouterr().err and not list(tmp_path.glob("*.mp4"))
    run("calibrate", f"--workdir={workdir}", "--prompt=a red circle", "--prompt=a blue bar", "--steps=8")
    told = capsys.readouterr().out
    assert told.rstrip().endswith("calibration.json: mode t2v, the mean of 2 samples")
    curve = json.loads((workdir / "calibration.json").read_text())["modes"]["t2v"]
    assert len(curve["times"]) == 8 and curve["settings"]["steps"] == 8
    more = "--reuse=magcache", "--reuse-limit=5", "--reuse-run=2", "--compare", "--schedule=measured"
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "skimage.metrics", None)  # not installed
        run("sample", *asked, *more, f"--output={tmp_path}", status=1)
        assert "pip install 'osjax[evals]'" in capsys.readouterr().err and not list(tmp_path.glob("*.mp4"))
    run("sample", *asked, *more, f"--output={tmp_path}")
    told = capsys.readouterr().out
    assert "8 model calls ran the blocks, 8 skipped them" in told
    assert "against the exact samples: PSNR" in told
    (path,) = tmp_path.glob("*.json")
    says = json.loads(path.read_text())
    assert {key: says[key] for key in ("reuse", "reuse_limit", "reuse_run", "schedule")} == {
        "reuse": "magcache",
        "reuse_limit": 5.0,
        "reuse_run": 2,
        "schedule": "measured",
    }
    assert "alpha" not in says


def test_files_of_weights_keep_their_calibration_beside_them(tmp_path, capsys):
    cfg = files.write(tmp_path)
    run("calibrate", f"--config={cfg}", "--prompt=a", "--steps=4", "--frames=8", "--height=32", "--width=32")
    (kept,) = tmp_path.rglob("*calibration.json")
    assert str(kept) in capsys.readouterr().out
    assert json.loads(kept.read_text())["weights"]["bytes"] > 1000


@pytest.mark.parametrize(
    "verb, flags, says",
    [
        ("calibrate", (), "say what to show"),
        ("calibrate", ("--prompt=a", "--steps=2"), "a curve takes 3 or more"),
        ("calibrate", ("--prompt=a", "--mode=t2i2v"), "calibrate that, with --ref"),
        ("calibrate", ("--prompt=a", "--mode=i2v_head"), "needs a reference for prompt 1"),
        ("calibrate", ("--prompt=a", "--ref=nowhere.png"), "nowhere.png does not exist"),
        ("calibrate", ("--prompt=a", "--workdir=https://x"), "a URL"),
        ("sample", ("--prompt=a", "--compare"), "--compare is for samples of --reuse"),
        ("sample", ("--prompt=a", "--reuse=banana"), "unknown reuse 'banana'"),
        ("sample", ("--prompt=a", "--guidance-from=0.1", "--guidance-until=0.2"), "less than the first"),
    ],
)
def test_mistakes_are_one_line(workdir, tmp_path, capsys, verb, flags, says):
    assert main([verb, "--cache=", f"--workdir={workdir}", *flags]) in (1, 2)
    error = capsys.readouterr().err
    assert says in error and "Traceback" not in error
