"""Adapters from the command line: trained beside a stage's model, resumed, exported, merged, imported and sampled."""

import json
import shutil

import chex
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from osjax.__main__ import main
from osjax.models import lora
from osjax.parts.pipeline import Pipeline
from osjax.training import metrics
from osjax.weights import adapters, lora_file, orbax_stream
from tests.e2e import faults

STAGE = "stages.adapter"
pytestmark = pytest.mark.timeout(600)

CONFIG = """
from osjax.configs import base, smoke
from ml_collections import ConfigDict
from tests.e2e import two_stages

def get_config():
    ae, model, adapter = two_stages.autoencoder(), two_stages.diffusion(), two_stages.diffusion()
    ae.steps, model.steps, adapter.steps = 1, 8, 6
    ae.latent_statistics.update(clips=0, resolution="")
    smoke.continued(adapter, "base")
    adapter.lora.rank, adapter.lora.alpha, adapter.checkpoint.every = 4, 8.0, 3
    model.optimizer.update(lr=5e-3, warmup_steps=0)  # gates begin at zero, and behind a closed gate nothing learns
    adapter.optimizer.update(lr=1e-2, warmup_steps=0)
    cfg = base.curriculum("adapted", {"autoencoder": ae, "base": model, "adapter": adapter})
    cfg.clips.update(train=16, size=32)
    return cfg

def models():
    fields = two_stages.diffusion().model
    return ConfigDict({"video": {"family": "mmdit", "config": fields.to_dict(), "layout": "open_sora_v2"}})
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory, compiled):
    """(flags that train, workdir of a run that nothing disturbed, config of `osjax convert`)"""
    folder = tmp_path_factory.mktemp("lora")
    (folder / "adapted.py").write_text(CONFIG)
    (folder / "models.py").write_text(
        CONFIG.replace("def get_config", "def training").replace("def models", "def get_config")
    )
    flags = {"config": folder / "adapted.py", "compilation_cache": compiled}
    faults.finish(folder / "whole", **flags)
    return flags, folder / "whole", f"--config={folder / 'models.py'}"


def item(workdir, stage, name="params"):
    """Arrays of a stage's last checkpoint as a tree."""
    found = orbax_stream.find(workdir / stage / "checkpoints", average=name == "ema")
    leaves = orbax_stream.open_leaves(found)
    return leaves.tree()


def lines(workdir):
    return [line["loss"] for line in metrics.read(workdir / "metrics.jsonl") if line["stage"] == "adapter"]


def test_only_adapters_are_trained_and_saved(run):
    _, workdir, _ = run
    trained = lora.pairs(item(workdir, "adapter"))
    assert ("double_blocks", "img_attn", "qkv") in trained and len(trained) == 6
    assert all(np.abs(pair["b"]).max() > 1e-3 for pair in trained.values())
    size = {
        s: sum(p.stat().st_size for p in (workdir / s / "checkpoints").rglob("*") if p.is_file())
        for s in ("base", "adapter")
    }
    assert size["adapter"] < size["base"] / 2
    found = [line for line in metrics.read(workdir / "metrics.jsonl") if line["stage"] == "adapter"]
    assert {"grad_norm/double_blocks", "grad_norm/single_blocks"} <= found[
        0
    ].keys() and "grad_norm/img_in" not in found[0]


def test_a_run_in_two_parts_ends_with_the_same_bits_and_another_model_beneath_is_refused(run, tmp_path):
    flags, undisturbed, _ = run
    workdir = tmp_path / "parts"
    shutil.copytree(undisturbed, workdir, ignore=shutil.ignore_patterns("adapter", "metrics.jsonl", "samples"))
    faults.finish(workdir, **flags, **{f"{STAGE}.steps": 3})
    faults.finish(workdir, **flags)
    assert lines(workdir) == lines(undisturbed) and len(lines(workdir)) == 6
    for name in ("params", "ema"):
        got, want = item(workdir, "adapter", name), item(undisturbed, "adapter", name)
        chex.assert_trees_all_equal(got, want)
    other = {f"{STAGE}.start.average": False, f"{STAGE}.steps": 7}
    status, error = faults.stop_after(workdir, "no such stage", 1, **flags, **other)
    assert status == 2 and "adapters of another model than `start` gives now" in error


def test_sampling_takes_the_model_with_its_adapters(run, tmp_path):
    _, workdir, _ = run
    said = json.loads((workdir / "model.json").read_text())["denoiser"]
    assert (said["checkpoints"], said["adapter"]) == ("base/checkpoints", "adapter/checkpoints")
    base = item(workdir, "base", "ema")
    want = lora.merged(lora.Adapted(base, item(workdir, "adapter", "ema"), 2.0))
    with Pipeline.from_checkpoint(workdir)._params.on_device() as got:
        worst = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), got, want)
        moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), got, base)
    assert max(jax.tree.leaves(worst)) < 1e-6 < 1e-3 < max(jax.tree.leaves(moved))
    argv = ["--prompt=a red circle", f"--workdir={workdir}", f"--output={tmp_path}", "--steps=2"]
    assert main(["sample", *argv]) == 0 and len(list(tmp_path.glob("*.mp4"))) == 1


def test_adapters_go_out_to_files_and_come_back_as_the_start_of_another_stage(run, tmp_path, capsys):
    flags, workdir, models_file = run
    source = workdir / "adapter" / "checkpoints"
    for out in (tmp_path / "peft", tmp_path / "one.safetensors"):
        assert main(["convert", str(source), str(out), "--model=video", models_file]) == 0
        assert "adapters of rank 4, alpha 8" in capsys.readouterr().out
    argv = [str(tmp_path / "peft"), str(tmp_path / "again.safetensors"), "--model=video", models_file]
    assert main(["convert", *argv]) == 0
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "one.safetensors").read_bytes()
    names = load_file(tmp_path / "peft" / lora_file.PEFT_FILE).keys()
    assert "base_model.model.double_blocks.0.img_attn.q_proj.lora_A.weight" in names

    base = str(workdir / "base" / "checkpoints")
    for adapter in ([], [f"--adapter={tmp_path / 'one.safetensors'}"], [f"--adapter={source}"]):
        out = tmp_path / f"model{len(list(tmp_path.iterdir()))}.safetensors"
        assert main(["convert", base, str(out), "--model=video", models_file, *adapter]) == 0
    plain, with_file, with_checkpoint = sorted(tmp_path.glob("model*.safetensors"), key=lambda p: p.stat().st_mtime)
    assert with_file.read_bytes() == with_checkpoint.read_bytes() != plain.read_bytes()

    second = tmp_path / "second"
    shutil.copytree(workdir, second, ignore=shutil.ignore_patterns("adapter", "metrics.jsonl", "samples"))
    more = {f"{STAGE}.lora.start": tmp_path / "peft", f"{STAGE}.steps": 1, f"{STAGE}.optimizer.lr": 1e-30}
    faults.finish(second, **flags, **more)
    start = adapters.read(tmp_path / "peft", Pipeline.from_checkpoint(workdir).module.cfg).tree
    got = item(second, "adapter")
    chex.assert_trees_all_close(got, start, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize(
    "override, words",
    [
        ({"stages.adapter.lora.targets": "('blocks',)"}, "adapter: lora.targets: 'blocks' fits no parameter"),
        ({"stages.base.lora.rank": 2}, "base: lora adapts a trained model: give one of start.stage and start.weights"),
        ({"stages.adapter.freeze.params": "('img_in',)"}, "adapter: lora freezes the whole model"),
        ({"stages.adapter.lora.base_dtype": "float16"}, "adapter: lora.base_dtype is 'float16'"),
        ({"stages.base.freeze.params": "('img',)"}, "base: freeze.params: 'img' fits no parameter; there are"),
    ],
)
def test_settings_that_cannot_work_are_named_before_anything_is_made(run, override, words, tmp_path, capsys):
    given = [f"--config.{key}={value}" for key, value in override.items()]
    assert main(["train", f"--config={run[0]['config']}", f"--workdir={tmp_path / 'new'}", "--dry-run", *given]) == 2
    error = capsys.readouterr().err
    assert words in error and len(error.splitlines()) == 1 and not (tmp_path / "new").exists()
