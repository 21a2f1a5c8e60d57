"""docs/troubleshooting.md: every message that it quotes is raised here, and reads as it stands there."""

import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from osjax import lock
from osjax.__main__ import main
from osjax.data import dataset, video
from tests import tiny_release
from tests.sampling import trained

pytestmark = pytest.mark.timeout(600)
PAGE = Path(__file__).parents[1] / "docs" / "troubleshooting.md"
QUOTED = re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(), re.MULTILINE)
FINETUNE = ["train", "--config=configs/finetune/lora_t2v_256.py", "--dry-run"]
SMOKE = ["train", "--config=configs/smoke.py", "--dry-run"]
RUN, FRESH = (["train", f"--config={name}", "--dry-run"] for name in ("{config}", "{fresh}"))
SAMPLE = ["sample", "--workdir={sampled}", "--prompt=a"]
LORA = ["--config.lora.rank=2", "--config.lora.alpha=2.0"]
MORE = ["train", "--config={config}", *LORA, "--config.steps=2"]

# The beginning of a quoted message -> the command that is answered so; {name} is a path of the fixture.
COMMANDS = {
    "unknown config key": [*SMOKE, "--config.stages.stage1_t2v.sed=3"],
    "... does not exist": [*RUN, "--config.autoencoder.weights=/nowhere"],
    "missing files are published": [*FINETUNE, "--config.data.source={source}"],
    "no data.source": [*RUN, "--config.data.source="],
    "data.choose looks": FINETUNE,
    "nothing to evaluate on": [*RUN, "--config.evaluate.every=2"],
    "no bucket fills": [*RUN, "--config.data.buckets=(('32px',8,1.0,4),)"],
    "mesh ... does not fit": [*RUN, "--config.mesh.fsdp=3"],
    "flash attention": [*RUN, "--config.model.attention=flash"],
    "weights do not fit": [*RUN, "--config.start.weights={autoencoder}"],
    "the state of training": [*FRESH, "--config.model.depth=400000"],
    "fits no parameter": [*RUN, *LORA, "--config.lora.targets=('banana',)"],
    "lora adapts": [*FRESH, *LORA],
    "... cannot be written to": [*RUN, "--workdir={file}/run"],
    "... is in use by": ["finetune", "{clips}", "--config={config}", "--workdir={held}"],
    "checkpoint ... does not fit": [*MORE, "--config.lora.rank=4", "--workdir={run}", "--dry-run"],
    "config.workdir is": [*SMOKE, "--config.workdir=gs://bucket/run"],
    "it has no caption": ["finetune", "{silent}", "--config={config}", "--workdir={new}", "--dry-run"],
    "left out, ... that have fewer": [*RUN, "--config.data.source={mixed}"],
    "left out, ... that are shorter": [*RUN, "--config.data.source={mixed}"],
    "clips in a row": [*RUN, "--config.data.source={undecodable}"],
    "nothing to sample from": ["sample", "--config={empty}", "--prompt=a"],
    "... holds no model.json": ["sample", "--workdir={new}", "--prompt=a"],
    "mode ... needs a reference": [*SAMPLE, "--mode=i2v_head"],
    "unknown condition mode": [*SAMPLE, "--mode=banana"],
    "... frames do not fit": [*SAMPLE, "--frames=7"],
    "the run in": ["sample", "--config={sampling}", "--prompt=a", "--config.model.adapter={sampled}"],
    "goes on with another config": [*MORE, "--workdir={again}", "--config.optimizer.lr=2e-3"],
    "checkpoint ... is set aside": [*MORE, "--workdir={damaged}"],
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """What the commands name: a release in miniature with its clips, runs that were trained, and what is damaged."""
    folder = tmp_path_factory.mktemp("troubles")
    named = {name: folder / name for name in ("held", "file", "new", "silent", "run", "again", "damaged", "mixed")}
    named |= {"config": tiny_release.write(folder), "clips": folder / "clips"}
    named |= {"autoencoder": folder / "autoencoder.safetensors", "sampled": trained.write(folder / "sampled")}
    named["source"] = next(folder.rglob("set/**/dataset_info.json")).parent
    named["sampling"] = tiny_release.sampling_config(folder / "sampling.py", folder)
    named["fresh"], named["empty"] = folder / "fresh.py", folder / "empty.py"
    named["fresh"].write_text(named["config"].read_text().replace("cfg.start.weights = VIDEO", ""))
    named["empty"].write_text("from osjax.configs.sample.options import options as get_config\n")
    named["file"].write_text("no folder")
    named["silent"].mkdir()
    video.write_mp4(named["silent"] / "a.mp4", np.zeros((8, 32, 32, 3), np.uint8), 8)
    (folder / "noise.mp4").write_bytes(b"no video at all")
    row = {"path": folder / "noise.mp4", "text": "noise", "num_frames": 8, "height": 32, "width": 32, "fps": 8.0}
    named["undecodable"] = dataset.build_clips([row] * 16, folder / "undecodable")
    mixed = tiny_release.write_clips(named["mixed"], 8)
    for name, (frames, side) in {"small": (8, 16), "short": (4, 32)}.items():
        video.write_mp4(mixed / f"{name}.mp4", np.zeros((frames, side, side, 3), np.uint8), 8)
        (mixed / f"{name}.txt").write_text(name)
    named["mixed"] = tiny_release.data_set(folder / "mixed_set", mixed)
    assert main(["train", f"--config={named['config']}", f"--workdir={named['run']}", *LORA]) == 0
    shutil.copytree(named["run"], named["again"])
    shutil.copytree(named["run"], named["damaged"])
    largest = max(
        (p for p in named["damaged"].glob("tuned/checkpoints/1/**/*") if p.is_file()), key=lambda p: p.stat().st_size
    )
    largest.write_bytes(largest.read_bytes()[:-20])
    return named


def pattern(message: str) -> str:
    """A quoted message as a regular expression: its dots stand for anything on the line."""
    return ".*?".join(map(re.escape, message.split("...")))


@pytest.mark.parametrize("message", QUOTED)
def test_what_the_page_quotes_is_what_is_said(message, files, tmp_path, monkeypatch, capsys, caplog):
    begins = [start for start in COMMANDS if message.startswith(start)]
    assert begins, "the page quotes a message that no command here is answered with"
    monkeypatch.chdir(tmp_path)
    argv = [arg.format(**files) for arg in COMMANDS[max(begins, key=len)]]
    if argv[0] == "train" and not any("workdir" in arg for arg in argv):
        argv.append(f"--workdir={tmp_path / 'run'}")
    with lock.held(files["held"] / "clips", "osjax finetune"), caplog.at_level(logging.WARNING):
        main(argv)
    said = capsys.readouterr()
    assert re.search(pattern(message), "\n".join((said.out, said.err, caplog.text))), said.err


def test_every_command_is_of_a_message_that_the_page_quotes():
    assert all(any(message.startswith(start) for message in QUOTED) for start in COMMANDS) and len(QUOTED) >= 25
    assert not re.search(pattern("mesh ... does not suit"), "mesh 3 does not fit 8 devices")
