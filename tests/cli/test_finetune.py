"""`osjax finetune` as a user runs it, by the five commands of docs/finetune.md: a folder of clips in, samples out.

The released files are stood in for by those of tiny models, under their own names where the commands name them.
"""

import contextlib
import io
import json
import os
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from osjax import lock
from osjax.__main__ import main
from osjax.data import dataset, video
from osjax.training import metrics
from tests import tiny_release

pytestmark = pytest.mark.timeout(900)
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "finetune.md").read_text().split("## In five commands")[1].split("\n## ")[0]
COMMANDS = [
    shlex.split(line, comments=True)
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
]
RUN = Path("runs/lora_t2v_256")
# What stands for the released model's configs in the commands.
INSTEAD = {"finetune": ["--config=tiny.py"], "convert": ["--config=models.py"], "sample": []}
MODELS = """
from ml_collections import ConfigDict
from tests.sampling import tiny

def get_config():
    return ConfigDict({"open_sora_v2": {"family": "mmdit", "config": tiny.DENOISER, "layout": "open_sora_v2"}})
"""


def run(command: list[str], *more: str) -> str:
    """What a command of the page prints, run on the tiny models."""
    assert command[0] == "osjax"
    argv = [arg.replace("configs/sample/t2v_256.py", "sampling.py") for arg in command[1:]]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main([*argv, *INSTEAD[argv[0]], *more]) == 0
    return out.getvalue()


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The folder in which the commands run: clips, 20 small squares, 2 wide, 1 too small; weights and configs."""
    folder = tmp_path_factory.mktemp("finetune")
    clips = tiny_release.write_clips(folder / "my_clips", 20)
    for number, (height, width) in enumerate(((32, 64), (32, 64), (16, 16))):
        video.write_mp4(clips / f"odd{number}.mp4", np.full((8, height, width, 3), 60 * number, np.uint8), 8)
        (clips / f"odd{number}.txt").write_text("grey")
    (clips / "notes.pdf").write_bytes(b"%PDF")
    (folder / "ckpts").mkdir()
    tiny_release.write_weights(folder / "ckpts")
    (folder / "tiny.py").write_text(tiny_release.FINETUNE)
    (folder / "models.py").write_text(MODELS)
    tiny_release.sampling_config(folder / "sampling.py", Path("ckpts"))
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


@pytest.fixture(scope="module")
def trained(here):
    """What the dry run and the run printed, one after the other."""
    return [run(command) for command in COMMANDS[:2]]


def test_a_table_says_which_clips_train_and_which_do_not_in_the_dry_run_too(trained, here):
    dry, wet = trained
    lines = [line for line in dry.splitlines() if line.startswith("lora_t2v_256: ")]
    table = lines[[i for i, line in enumerate(lines) if " clips train, " in line][0] :]
    assert "21 of 22 clips train" in table[0]  # one of 23 is held out
    assert any(" repeats" in line for line in table)
    assert "left out, 1 that have fewer than 80% of the pixels of 32px: a smaller resolution" in table[-1]
    assert "odd2.mp4 (16x16, 8 frames)" in table[-1]
    assert all(line in wet for line in table)
    assert [f"lora_t2v_256: {line}" for line in (RUN / "lora_t2v_256" / "clips.txt").read_text().splitlines()] == table
    assert "not taken, as neither clip nor picture nor caption, 1:" in dry and "notes.pdf" in dry
    assert "parameters train" in dry and main(["report", str(RUN)]) == 0
    assert "clips train" in (RUN / "run.html").read_text()


def test_the_run_trains_on_captions_with_its_trigger_word_and_is_evaluated_on_clips_of_its_own(trained, here):
    lines = metrics.read(RUN / "metrics.jsonl")
    assert [line["step"] for line in lines] == [0, 1] and lines[0]["eval_loss"] > 0
    (info,) = (RUN / "clips").rglob("dataset_info.json")
    assert all(record["text"].decode().startswith("sks, ") for record in dataset.open_source(info.parent))


def test_the_same_command_again_does_nothing_twice_and_more_steps_go_on(trained, here, capsys):
    again = shutil.copytree(RUN, here / "again")
    made = json.loads((again / "clips" / "made_from.json").read_text())
    run(COMMANDS[1], f"--workdir={again}", "--config.steps=3")
    assert [line["step"] for line in metrics.read(again / "metrics.jsonl")] == [0, 1, 2]
    assert json.loads((again / "clips" / "made_from.json").read_text()) == made
    assert "encode" not in capsys.readouterr().err


def test_the_other_commands_of_the_page_sample_the_run_and_export_it(trained):
    assert [command[1] for command in COMMANDS] == ["finetune", "finetune", "sample", "sample", "convert"]
    for command in COMMANDS[2:]:
        run(command)
    assert len(list(Path("samples").glob("*.mp4"))) == len(list(Path("weaker").glob("*.mp4"))) == 1
    (told,) = Path("weaker").glob("*.json")
    rows = json.loads(told.read_text())["model"]["adapters"]
    assert rows == [{"path": str(RUN.resolve()), "strength": 0.7}]
    assert Path("my_lora/adapter_config.json").is_file()


def test_the_readme_has_the_same_commands():
    section = (ROOT / "README.md").read_text().split("### Fine-tune")[1].split("Which card for what")[0]
    lines = [line for block in re.findall(r"```bash\n(.*?)```", section, re.DOTALL) for line in block.splitlines()]
    commands = [shlex.split(line, comments=True) for line in lines]
    assert commands and all(command in COMMANDS for command in commands)


def test_missing_weights_are_told_together_with_the_command_that_fetches_them(here, tmp_path, capsys):
    argv = ["finetune", "my_clips", f"--workdir={tmp_path / 'run'}", "--weights=nowhere", "--dry-run"]
    small = ["--config.data.choose.resolution=32px", "--config.data.choose.frames=5"]
    assert main([*argv, *small]) == 2
    lines = capsys.readouterr().err.splitlines()
    lines = [line for line in lines if line.startswith("osjax: ")]
    lost = [line for line in lines if "does not exist" in line]
    for key in ("start.weights", "autoencoder.weights", "text.t5", "text.clip"):
        assert any(f"lora_t2v_256: {key} nowhere/" in line for line in lost)
    fetch = "osjax: missing files are published: hf download hpcai-tech/Open-Sora-v2 --local-dir nowhere"
    assert [line for line in lines if "published" in line] == [fetch]


def test_weights_that_are_missing_are_told_where_the_clips_are_missing_too(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    argv = ["train", "--config=configs/finetune/lora_t2v_256.py", f"--workdir={tmp_path / 'run'}", "--dry-run"]
    for source in ([], ["--config.data.source=nowhere"]):
        assert main([*argv, *source]) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("osjax: ")]
        assert sum("data.source" in line or "nowhere" in line for line in lines) == 1
        for key in ("start.weights", "autoencoder.weights", "text.t5", "text.clip"):
            assert sum(f"lora_t2v_256: {key} ckpts/" in line for line in lines) == 1
        assert lines[-1].endswith("published: hf download hpcai-tech/Open-Sora-v2 --local-dir ckpts")


def test_what_cannot_be_fine_tuned_is_refused(here, tmp_path, capsys):
    for argv, says in (
        (["finetune", str(tmp_path / "none")], "does not exist: give a folder of clips"),
        (["finetune", "my_clips", "--config=configs/smoke.py"], "trains one stage of the video model"),
        (["finetune", "my_clips", "--model=banana"], "invalid choice"),
    ):
        assert main([*argv, *([f"--workdir={tmp_path / 'w'}"])]) == 2
        assert says in capsys.readouterr().err


def test_two_that_build_in_one_folder_at_once_are_not_let_in(here, tmp_path, capsys):
    command = ["finetune", "my_clips", "--config=tiny.py", f"--workdir={tmp_path}"]
    with lock.held(tmp_path / "clips", "osjax finetune"):
        assert main(command) == 2
    assert "clips is in use by osjax finetune, process" in capsys.readouterr().err
    assert not list((tmp_path / "clips").glob("*.csv"))
