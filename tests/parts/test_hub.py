"""Weights by hf:// paths, from a stand-in for Hugging Face's server on this machine."""

import json
import shutil

import pytest

from osjax.__main__ import main
from osjax.errors import UserError
from osjax.parts import config, hub, run
from tests import tiny_release
from tests.parts.hub_server import Hub

OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A repository with two commits: the weights of tiny models, and those with something else beside them."""
    folder = tmp_path_factory.mktemp("files")
    tiny_release.write_weights(folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()} | {"t5/config.json": b"{}", "run.py": b"bad"}
    made = Hub({"me/model": {OLD: files, NEW: {**files, "README.md": b"new"}}})
    yield made
    made.close()


@pytest.fixture(autouse=True)
def at_home(server, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)


def test_a_file_a_folder_and_a_whole_repository_are_fetched_and_code_is_not(server):
    pins: dict[str, str] = {}
    path = hub.local("hf://me/model/video.safetensors", pins)
    assert pins == {"me/model@main": NEW} and f"/snapshots/{NEW}/" in path
    assert open(path, "rb").read() == server.repositories["me/model"][NEW]["video.safetensors"]
    assert hub.local("hf://me/model/t5", pins).endswith("/t5")
    whole = hub.local(f"hf://me/model@{OLD}", {})
    assert whole.endswith(OLD) and not any("run.py" in path for path in server.asked)


def test_a_pinned_branch_stays_where_it_was():
    assert f"/{OLD}/" in hub.local("hf://me/model/video.safetensors", {"me/model@main": OLD})


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("hf://me/none/video.safetensors", "cannot be fetched"),
        ("hf://me/model/none.safetensors", "has no none.safetensors at main"),
        ("hf://me/model@banana", "cannot be fetched"),
        ("hf://model", "is no hf://OWNER/NAME"),
        ("hf://me/model/../../x", "is no hf://OWNER/NAME"),
    ],
)
def test_what_is_not_there_is_told(path, says):
    with pytest.raises(UserError, match=says) as refused:
        hub.local(path, {})
    assert refused.value.status == 2 and "\n" not in str(refused.value)


def test_a_run_and_its_dry_run_take_such_paths_and_pin_what_they_meant(tmp_path):
    source = tiny_release.data_set(tmp_path / "set", tiny_release.write_clips(tmp_path / "clips", 4))
    path = tmp_path / "tiny.py"
    path.write_text(tiny_release.FINETUNE)
    flags = {"data.source": source, "data.fill": True, "workdir": tmp_path / "run"}
    flags |= {"start.weights": "hf://me/model/video.safetensors"}
    flags |= {"autoencoder.weights": "hf://me/model/autoencoder.safetensors"}
    argv = ["train", f"--config={path}", "--dry-run", *(f"--config.{key}={value}" for key, value in flags.items())]
    assert main(argv) == 0 and not (tmp_path / "run").exists()
    asked = {key: value if isinstance(value, bool) else str(value) for key, value in flags.items()}
    made = run.of_config(config.load(path, asked))
    assert made.pins == {"me/model@main": NEW} and NEW in made.saved["start"]["weights"]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / run.PINS).write_text(json.dumps({"me/model@main": OLD}))
    assert OLD in run.of_config(config.load(path, asked)).saved["start"]["weights"]


def test_a_repository_stands_in_for_the_folder_of_released_files(tmp_path, capsys):
    clips = tiny_release.write_clips(tmp_path / "clips", 4)
    (tmp_path / "tiny.py").write_text(tiny_release.FINETUNE)
    argv = ["finetune", str(clips), f"--config={tmp_path / 'tiny.py'}", f"--workdir={tmp_path / 'run'}", "--dry-run"]
    assert main([*argv, "--weights=hf://me/model"]) == 0
    assert f"/snapshots/{NEW}/video.safetensors" in capsys.readouterr().out
    assert main([*argv, "--weights=hf://me/none"]) == 2


def test_keys_that_name_no_weights_take_no_such_path(tmp_path, capsys):
    assert main(["train", "--config=configs/smoke.py", "--config.workdir=hf://me/model"]) == 2
    assert "a URL" in capsys.readouterr().err
    assert main(["sample", "--workdir=hf://me/model", "--prompt=x"]) == 2
    assert main(["finetune", "hf://me/model", f"--workdir={tmp_path}"]) == 2
