"""launch/local_multiprocess.sh as a user runs it: two processes of `osjax train` on this machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from osjax.parts.clips import ClipSet
from osjax.stages import data as train_data
from osjax.training import metrics
from tests.parallel import processes

pytestmark = pytest.mark.timeout(600)
SCRIPT = processes.ROOT / "launch" / "local_multiprocess.sh"
CONFIG = """
from osjax.configs import base
from tests.e2e import two_stages

def get_config():
    cfg = base.single("autoencoder", two_stages.autoencoder())
    cfg.steps, cfg.checkpoint.every = 2, 0
    cfg.latent_statistics.update(clips=0, resolution="")
    cfg.data.buckets = (("32px", 8, 1.0, 4),)
    return cfg
"""


def launch(folder: Path, *flags: str) -> subprocess.CompletedProcess:
    """Two processes over a workdir in the folder. `osjax` is this checkout's, whatever is installed."""
    shim = folder / "bin" / "osjax"
    shim.parent.mkdir(exist_ok=True)
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m osjax "$@"\n')
    shim.chmod(0o755)
    (folder / "config.py").write_text(CONFIG)
    env = {**processes.environment(1), "PORT": str(processes.free_port()), "PROCESSES": "2"}
    env["PATH"] = f"{shim.parent}:{os.environ['PATH']}"
    command = [SCRIPT, folder / "config.py", folder / "run", *flags]
    return subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=500)


@pytest.mark.long
def test_two_processes_of_the_script_train_as_one_run(tmp_path):
    clips = ClipSet(train=8, size=32)
    data = train_data.OwnData(None, clips, tmp_path).path("train")
    done = launch(tmp_path, f"--config.source={data}", "--config.compilation_cache=")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("finished: autoencoder") == 1  # process 0 speaks for all
    lines = metrics.read(tmp_path / "run" / "metrics.jsonl")
    assert [line["step"] for line in lines] == [0, 1] and all(line["loss"] > 0 for line in lines)


def test_a_command_line_that_cannot_run_gives_its_status_to_the_script(tmp_path):
    failed = launch(tmp_path, "--config.stepz=3")
    assert failed.returncode == 2 and failed.stderr.count("did you mean steps?") == 2
    assert not (tmp_path / "run").exists()
