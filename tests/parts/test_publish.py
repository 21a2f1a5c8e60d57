"""What a finished run says of itself: warnings to those who sample, and a card where it is uploaded.

It is uploaded to a stand-in for Hugging Face's server, and loaded from there again.
"""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from osjax.__main__ import main
from osjax.models import config as model_config
from osjax.parts import hub, lineage, model_card, trained_on
from osjax.parts.model_card import Card
from osjax.sampling import workdir
from osjax.sampling.settings import SampleSettings
from osjax.sampling.trained import Trained
from osjax.weights import adapters
from tests import tiny_release
from tests.parts.hub_server import TOKEN, Hub
from tests.sampling import tiny

pytestmark = pytest.mark.timeout(600)
PROMPT = "sks, a <red> circle\nmoves `left`"


@pytest.fixture(scope="module")
def server():
    made = Hub({"me/other": {"a" * 40: {"weights.bin": b"mine"}}, "me/open": {"a" * 40: {"osjax.json": b"{}"}}})
    made.public.add("me/open")
    yield made
    made.close()


@pytest.fixture(autouse=True)
def at_home(server, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for name, value in (("HF_HUB_CACHE", str(tmp_path / "cache")), ("HF_HUB_DISABLE_XET", True)):
        monkeypatch.setattr(constants, name, value)
    server.refuse.clear()


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """(folder with the release, workdir of a run of adapters on clips with a trigger word)"""
    folder = tmp_path_factory.mktemp("published")
    tiny_release.write_weights(folder)
    clips = tiny_release.write_clips(folder / "clips", 6)
    (folder / "tiny.py").write_text(tiny_release.FINETUNE)
    prompts = f"({PROMPT!r},)"
    argv = ["finetune", str(clips), f"--config={folder / 'tiny.py'}", f"--weights={folder}", "--trigger=sks"]
    argv += ["--config.evaluate.sample_every=1", f"--config.evaluate.prompts={prompts}"]
    assert main([*argv, f"--workdir={folder / 'run'}"]) == 0
    return folder, folder / "run"


@pytest.fixture(scope="module")
def uploaded(here, server):
    """The files of a repository that the run was uploaded to."""
    with pytest.MonkeyPatch.context() as patch:
        from huggingface_hub import constants

        patch.setenv("HF_ENDPOINT", server.url)
        patch.setenv("HF_TOKEN", TOKEN)
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        assert main(["convert", str(here[1]), "hf://me/stars", "--license=apache-2.0"]) == 0
    return server.files("me/stars")


def test_a_run_becomes_a_private_repository_with_weights_card_facts_and_samples(uploaded, here, server):
    assert {"adapter_model.safetensors", "adapter_config.json", "README.md", "osjax.json"} <= uploaded.keys()
    assert "me/stars" not in server.public
    (sample,) = (file for file in uploaded if file.endswith(".mp4"))
    taken = here[1] / "samples" / "lora_t2v_256" / "step-0000001" / Path(sample).name
    assert uploaded[sample] == taken.read_bytes()
    for content in uploaded.values():
        assert str(here[0]).encode() not in content  # no path of this machine


def test_the_card_says_what_of_and_how_to_sample(uploaded):
    card = uploaded["README.md"].decode()
    head = dict(line.split(": ", 1) for line in card.split("---")[1].strip().splitlines())
    assert head["license"] == '"apache-2.0"' and head["instance_prompt"] == '"sks"' and "base_model" not in head
    facts = json.loads(uploaded["osjax.json"])
    assert "video.safetensors" in card and facts["lineage"]["base_checksum"] in card
    assert re.fullmatch(r"[0-9a-f]{16}", facts["trained"]["data"]) and facts["trained"]["data"] in card
    assert facts["trained"]["clips"] == 6 and facts["trained"]["shapes"] == [[8, 32, 32]]
    assert facts["config"]["lora"]["rank"] == 2 and '"rank": 2' in card
    assert "- sks, a &lt;red&gt; circle moves \\`left\\`" in card and "rank 2" in card


def test_the_command_of_the_card_samples_from_the_repository(uploaded, here, tmp_path, capsys):
    shown = re.search(r"```bash\n(.*?)\n```", uploaded["README.md"].decode(), re.DOTALL)[1]
    command = shlex.split(shown)
    assert command[:2] == ["osjax", "sample"] and command[-1] == PROMPT
    sampling = tiny_release.sampling_config(tmp_path / "sampling.py", here[0])
    argv = [arg.replace("CONFIG.py", str(sampling)) for arg in command[1:]]
    assert main([*argv, f"--output={tmp_path / 'out'}"]) == 0
    (told,) = (tmp_path / "out").glob("*.json")
    assert "/models--me--stars/snapshots/" in json.loads(told.read_text())["model"]["adapters"][0]["path"]


def test_what_is_uploaded_is_what_the_run_trained_bit_for_bit(uploaded, here):
    cfg = model_config("mmdit", **tiny.DENOISER)
    again = adapters.read(Path(hub.local("hf://me/stars", {})), cfg)
    trained = adapters.read(here[1] / "lora_t2v_256" / "checkpoints", cfg)
    assert again.cfg == trained.cfg
    np.testing.assert_equal(again.tree, trained.tree)
    assert trained_on.of_path(Path(hub.local("hf://me/stars", {}))).trigger == "sks"


def test_uploaded_again_it_replaces_what_it_had_and_a_licence_is_never_made_up(uploaded, here, server, capsys):
    assert main(["convert", str(here[1]), "hf://me/stars", "--form=comfyui"]) == 0
    files = server.files("me/stars")
    assert "adapters.safetensors" in files and "adapter_model.safetensors" not in files
    assert b"license:" not in files["README.md"] and b"not stated by who uploaded it" in files["README.md"]
    assert "private; to sample from it:\nosjax sample" in capsys.readouterr().out


def test_a_whole_model_goes_there_and_back_byte_for_byte(here, server, tmp_path):
    models = tmp_path / "models.py"
    row = f'{{"family": "mmdit", "config": {tiny.DENOISER!r}, "layout": "open_sora_v2"}}'
    models.write_text(
        f"from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict({{'video': {row}}})"
    )
    argv = ["--model=video", f"--config={models}"]
    assert main(["convert", str(here[0] / "video.safetensors"), "hf://me/whole", *argv]) == 0
    assert main(["convert", "hf://me/whole", str(tmp_path / "back.safetensors"), *argv, "--to=safetensors"]) == 0
    given, back = load_file(here[0] / "video.safetensors"), load_file(tmp_path / "back.safetensors")
    np.testing.assert_equal(back, given)


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (401, "the server answers 401"),
        (403, "may not do this: make one that may write"),
        (404, "the server answers 404"),
        (503, "run the same command again later"),
    ],
)
def test_what_the_server_refuses_is_one_line(here, server, capsys, status, says):
    server.refuse = {"/api/repos/create": status}
    assert main(["convert", str(here[1]), "hf://me/new"]) == 1
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("osjax: "))
    assert says in line and "hf://me/new is not written" in line


def test_an_upload_that_is_refused_halfway_says_so(here, server, capsys):
    server.refuse = {"/large": 403}
    assert main(["convert", str(here[1]), "hf://me/half", "--form=diffusers"]) == 1
    assert "the server answers 403" in capsys.readouterr().err
    assert server.files("me/half").keys() == {".gitattributes"}


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["hf://me/other"], "holds files of another program, weights.bin say"),
        (["hf://me/open"], "is public, for everybody to see: add --public"),
        (["hf://me/x/file"], "is no hf://OWNER/NAME, a repository to upload to"),
        (["hf://me"], "is no hf://OWNER/NAME, a repository to upload to"),
        (["hf://me/x", "--license=all rights"], "is no identifier of a licence"),
        (["hf://me/x", "--to=orbax"], "a repository takes safetensors"),
        (["x", "--public"], "--public is for what is uploaded"),
    ],
)
def test_what_cannot_be_uploaded_is_refused_before_anything_is_made(here, server, capsys, argv, says):
    assert main(["convert", str(here[1]), *argv]) == 2
    assert says in capsys.readouterr().err and "me/x" not in server.repositories


def test_without_a_token_or_a_network_it_says_what_is_missing(here, server, tmp_path, monkeypatch, capsys):
    from huggingface_hub import constants

    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert main(["convert", str(here[1]), "hf://me/x"]) == 1
    assert "hf://me/x cannot be reached" in capsys.readouterr().err
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(tmp_path / "none"))
    assert main(["convert", str(here[1]), "hf://me/x"]) == 2
    assert "needs a token that may write: `hf auth login`, or set HF_TOKEN" in capsys.readouterr().err


def test_a_run_says_itself_which_model_it_trained_and_what_does_not_is_asked_for_it(here, tmp_path, capsys):
    assert main(["convert", str(here[1]), str(tmp_path / "peft")]) == 0
    assert (tmp_path / "peft" / "adapter_config.json").is_file()
    assert main(["convert", str(here[0] / "video.safetensors"), str(tmp_path / "x")]) == 2
    assert "does not say which model it holds: give --model" in capsys.readouterr().err


def test_paths_of_this_machine_become_names_that_others_can_read():
    commit = "b" * 40
    cached = f"/home/me/.cache/huggingface/hub/models--hpcai-tech--Open-Sora-v2/snapshots/{commit}/a/b.safetensors"
    assert lineage.public(cached) == f"hf://hpcai-tech/Open-Sora-v2/a/b.safetensors@{commit}"
    assert lineage.published_at(cached) == "hpcai-tech/Open-Sora-v2"
    for path in ("/home/me/secret/w.pt", "../secret/w.pt", "~/secret/w.pt", "C:\\secret\\w.pt", "gs://secret/w.pt"):
        assert lineage.public(path) == "w.pt" and lineage.published_at(path) is None
    assert lineage.public("ckpts/w.pt") == "ckpts/w.pt" and lineage.public("a cat / a dog") == "a cat / a dog"
    told = lineage.of_stage({"start": {"weights": "ckpts/Open_Sora_v2.safetensors"}})
    assert "a local file, named as one of hpcai-tech/Open-Sora-v2" in told["base"]


def test_a_card_names_the_model_beneath_only_where_it_is_known_and_its_head_takes_any_text():
    card = Card("me/x", "k", True, base="a/b", trained=Trained(trigger='"\n: #'), licence=None).text()
    head = card.split("\n---")[0].splitlines()
    assert 'base_model: "a/b"' in head and 'instance_prompt: "\\"\\n: #"' in head and not card.count("license:")
    assert "base_model" not in Card("me/x", "k", True).text()
    model_card.check_licence("cc-by-nc-4.0")


def test_a_run_says_what_it_trained_on_and_its_samples_are_warned(here, tmp_path, caplog, capsys):
    _, run = here
    known = workdir.read(run).trained
    assert known.shapes == ((8, 32, 32),) and known.trigger == "sks" and known.clips == 6 and len(known.data) == 16
    assert known.words == ()  # of the model beneath, nobody knows
    argv = ["sample", f"--workdir={run}", "--steps=1", "--height=64", "--width=64", f"--output={tmp_path}"]
    assert main([*argv, "--prompt", "a circle"]) == 0
    assert "the prompt lacks 'sks'" in caplog.text and "64x64 pixels are far" in caplog.text
    caplog.clear()
    assert main(["sample", f"--workdir={run}", "--steps=1", f"--output={tmp_path}", "--prompt", "a sks circle"]) == 0
    assert not caplog.text
    assert "0000-a-sks-circle.mp4\n1 sample in " in capsys.readouterr().out
    (told,) = (json.loads(path.read_text()) for path in tmp_path.glob("*sks*.json"))
    assert told["height"] == 32 and not SampleSettings(height=32, width=32).unread() & told.keys()


def test_adapters_of_a_run_warn_wherever_they_are_added_but_at_strength_zero(here, tmp_path, caplog):
    folder, run = here
    config = tiny_release.sampling_config(tmp_path / "sampling.py", folder)
    argv = ["sample", f"--config={config}", "--steps=1", f"--config.model.adapter={run}", "--prompt", "a circle"]
    assert main([*argv, f"--output={tmp_path / 'one'}"]) == 0 and "lacks 'sks'" in caplog.text
    caplog.clear()
    strength = "--config.model.adapter_strength=0.0"
    assert main([*argv, strength, f"--output={tmp_path / 'two'}"]) == 0 and "lacks" not in caplog.text


def test_a_damaged_record_is_no_reason_not_to_sample(here, tmp_path):
    _, run = here
    (tmp_path / "osjax.json").write_text('{"trained": {"shapes": 3}}')
    assert trained_on.of_path(tmp_path) is None and trained_on.of_path(run / "lora_t2v_256").trigger == "sks"
