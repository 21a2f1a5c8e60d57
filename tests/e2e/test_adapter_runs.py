"""A run that trained adapters on a release's model: sampled from its folder, beside others, and at any strength."""

import json
import shutil

import av
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from osjax.__main__ import main
from osjax.data import video
from osjax.models import lora
from osjax.parts import config
from osjax.parts.pipeline import Pipeline
from osjax.parts.video_model import checkpoints_of
from osjax.sampling import workdir
from osjax.training import metrics
from osjax.weights import adapters, orbax_stream
from tests import tiny_release
from tests.sampling import tiny

pytestmark = pytest.mark.timeout(600)
PROMPT = "--prompt=a red circle"
TRAIN = {"steps": 6, "lora.rank": 2, "lora.alpha": 8.0, "optimizer.lr": 0.05, "optimizer.eps": 1e-8, "mesh.data": 8}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """(folder of the release, its config, workdir of a finished run of adapters)"""
    folder = tmp_path_factory.mktemp("tuned")
    path = tiny_release.write(folder)
    flags = [f"--config.{key}={value}" for key, value in TRAIN.items()]
    assert main(["train", f"--config={path}", f"--workdir={folder / 'run'}", *flags]) == 0
    return folder, path, folder / "run"


@pytest.fixture(scope="module")
def small(tuned, tmp_path_factory):
    """(folder of the release, command that trains beside int8, workdir of such a run that nothing disturbed)"""
    folder, path, _ = tuned
    asked = {**TRAIN, "lora.base_dtype": "int8", "checkpoint.every": 3, "model.remat": "full"}
    asked |= {"evaluate.prompts": ("a red circle",), "evaluate.sample_every": 3}
    flags = ["train", f"--config={path}", *(f"--config.{key}={value}" for key, value in asked.items())]
    run = tmp_path_factory.mktemp("small") / "run"
    assert main([*flags, f"--workdir={run}"]) == 0
    return folder, flags, run


def latents(pipe: Pipeline) -> np.ndarray:
    return pipe(["a red circle"], seeds=[3]).latents_BTHWC


def test_a_finished_run_is_sampled_from_its_folder(tuned, tmp_path):
    folder, _, run = tuned
    assert main(["sample", f"--workdir={run}", PROMPT, f"--output={tmp_path}", "--steps=2"]) == 0
    (made,) = tmp_path.glob("*.mp4")
    with av.open(str(made)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 8
    said = json.loads((run / "model.json").read_text())
    assert said["denoiser"]["checkpoints"] is None and said["denoiser"]["adapter"] == "tuned/checkpoints"
    assert said["files"]["model"]["weights"] == str(folder / "video.safetensors")


def test_the_adapters_of_a_run_change_what_is_sampled_and_strength_zero_nothing_at_all(tuned):
    folder, _, run = tuned
    plain = {"settings": {"steps": 2}, "autoencoder": None}
    with_own = latents(Pipeline.from_checkpoint(run, **plain))
    base = config.load(_sampling(folder), {"sample.steps": 2})
    without = latents(Pipeline.from_config(base))
    assert np.abs(with_own - without).max() > 1e-2
    for strength, same in ((0.0, True), (1.0, False)):
        asked = {"sample.steps": 2, "model.adapter": str(run), "model.adapter_strength": strength}
        got = latents(Pipeline.from_config(config.load(_sampling(folder), asked)))
        assert np.array_equal(got, without) == same
        if strength:
            np.testing.assert_array_equal(got, with_own)


def test_merged_and_unmerged_adapters_give_the_same_within_1e_5(tuned):
    _, _, run = tuned
    pipe = Pipeline.from_checkpoint(run)
    module, text = pipe.module, pipe.text_encoder
    trained = adapters.read(checkpoints_of(str(run)), module.cfg)
    beside = lora.Adapted(tiny.params(module.cfg), trained.tree, trained.cfg.scale)
    txt, vec = text.encode_batch(["a red circle"])
    rng = np.random.default_rng(0)
    img = jnp.asarray(rng.standard_normal((1, 16, 8)), jnp.float32)
    ids = jnp.zeros((1, 16, 3)), jnp.zeros((1, txt.shape[1], 3))
    inputs = (img, ids[0], txt, ids[1], jnp.full((1,), 0.5), vec)
    cond = jnp.zeros((1, 16, 9))

    def velocity(variables):
        return np.asarray(jax.jit(module.apply)(variables, *inputs, cond=cond))

    unmerged = velocity(lora.variables(beside))
    merged = velocity({"params": nn.unbox(lora.merged(beside))})
    base = velocity({"params": tiny.params(module.cfg)})
    assert np.abs(unmerged - merged).max() < 1e-5 < 1e-2 < np.abs(merged - base).max()


def test_several_adapters_are_added_with_strengths_that_the_json_names(tuned, tmp_path):
    folder, _, run = tuned
    other = shutil.copytree(run, tmp_path / "other")
    rows = f'(("{other}",0.25),("{other}",0.25))'
    argv = ["sample", f"--config={_sampling(folder)}", PROMPT, "--steps=2", f"--config.model.adapter={run}"]
    half = [*argv, "--config.model.adapter_strength=0.5", f"--config.model.adapters={rows}"]
    assert main([*half, f"--output={tmp_path / 'three'}"]) == 0
    assert main([*argv, f"--output={tmp_path / 'one'}"]) == 0
    told = {name: json.loads(next((tmp_path / name).glob("*.json")).read_text()) for name in ("three", "one")}
    assert told["three"]["model"]["adapters"] == [
        {"path": str(run), "strength": 0.5},
        {"path": str(other), "strength": 0.25},
        {"path": str(other), "strength": 0.25},
    ]
    asked = {"sample.steps": 2, "model.adapter": str(run)}
    one = latents(Pipeline.from_config(config.load(_sampling(folder), asked)))
    asked |= {"model.adapter_strength": 0.5, "model.adapters": ((str(other), 0.25), (str(other), 0.25))}
    three = latents(Pipeline.from_config(config.load(_sampling(folder), asked)))
    np.testing.assert_allclose(three, one, atol=1e-4)


@pytest.mark.long
def test_a_run_of_a_whole_model_takes_adapters_of_another_run(tuned, tmp_path):
    folder, path, run = tuned
    whole = tmp_path / "whole"
    assert main(["train", f"--config={path}", f"--workdir={whole}", "--config.optimizer.lr=1e-30"]) == 0
    plain = latents(Pipeline.from_checkpoint(whole))
    added = latents(Pipeline.from_checkpoint(whole, adapter=str(run)))
    assert np.abs(added - plain).max() > 1e-2
    np.testing.assert_allclose(added, latents(Pipeline.from_checkpoint(run)), atol=1e-4)


def test_what_a_run_names_and_what_is_not_there_is_said(tuned, tmp_path, capsys):
    _, _, run = tuned
    moved = shutil.copytree(run, tmp_path / "moved")
    said = json.loads((moved / workdir.FILE).read_text())
    said["files"]["model"]["weights"] = "/nowhere.safetensors"
    (moved / workdir.FILE).write_text(json.dumps(said))
    assert main(["sample", f"--workdir={moved}", PROMPT, f"--output={tmp_path / 'out'}"]) == 2
    assert "files.model.weights is '/nowhere.safetensors', which does not exist" in capsys.readouterr().err
    for flag in ("--config.model.adapter=/nowhere", '--config.model.adapters=(("/nowhere",1.0),)'):
        assert main(["sample", f"--workdir={run}", PROMPT, f"--output={tmp_path / 'out'}", flag]) == 2
        assert "'/nowhere', which does not exist" in capsys.readouterr().err


def test_adapters_beside_an_int8_model_resume_with_the_same_bits_and_hold_nothing_of_it(small, tmp_path):
    folder, flags, run = small
    parts = tmp_path / "parts"
    for steps in (3, 6):
        assert main([*flags, f"--workdir={parts}", f"--config.steps={steps}"]) == 0
    losses = [[line["loss"] for line in metrics.read(workdir / "metrics.jsonl")] for workdir in (run, parts)]
    assert losses[0] == losses[1] and len(losses[0]) == 6
    saved = [orbax_stream.open_leaves(orbax_stream.find(w / "tuned" / "checkpoints")).tree() for w in (run, parts)]
    jax.tree.map(np.testing.assert_array_equal, *saved)
    assert {path[-1] for path in lora.flatten_dict(saved[0])} == {"a", "b"}
    half = [*flags, f"--workdir={tmp_path / 'half'}", "--config.lora.base_dtype=bfloat16"]
    assert main(half) == 0
    assert [line["loss"] for line in metrics.read(tmp_path / "half" / "metrics.jsonl")] != losses[0]


def test_another_model_beneath_adapters_is_refused_by_the_dry_run_and_the_run_alike(small, tmp_path, capsys):
    folder, flags, run = small
    tensors = load_file(folder / "video.safetensors")
    name = "double_blocks.0.img_attn.q_proj.weight"  # what an adapter merged into it would change
    save_file({**tensors, name: tensors[name] + 0.05}, tmp_path / "merged.safetensors")
    said = []
    for weights, more in ((folder / "video", ()), (tmp_path / "merged", ()), (tmp_path / "merged", ("--dry-run",))):
        went_on = shutil.copytree(run, tmp_path / f"run{len(said)}")
        asked = [f"--workdir={went_on}", "--config.steps=7", f"--config.start.weights={weights}.safetensors", *more]
        capsys.readouterr()
        said.append((main([*flags, *asked]), [x for x in capsys.readouterr().err.splitlines() if "another model" in x]))
    assert said[0] == (0, []) and said[1] == said[2] and said[1][0] == 2 and len(said[1][1]) == 1


def test_samples_while_adapters_train_beside_int8_have_them_and_begin_as_the_model_alone(small):
    folder, _, run = small
    shown = {path.parent.name: video.decode(path).astype(int) for path in (run / "samples" / "tuned").rglob("*.mp4")}
    assert shown.keys() == {"step-0000000", "step-0000003"}
    alone = Pipeline.from_config(config.load(_sampling(folder), {}))(["a red circle"]).videos_BTHWC[0]
    began, later = (np.abs(shown[name] - alone).mean() for name in sorted(shown))
    assert began < 4 < later  # int8 and H.264 are no more than that away


def test_at_strength_zero_the_adapters_of_an_int8_run_change_no_bit(small):
    folder, _, run = small
    without = latents(Pipeline.from_config(config.load(_sampling(folder), {})))
    for strength in (0.0, 1.0):
        asked = {"model.adapter": str(run), "model.adapter_strength": strength}
        got = latents(Pipeline.from_config(config.load(_sampling(folder), asked)))
        assert np.array_equal(got, without) == (strength == 0.0)


def _sampling(folder):
    """A config that samples the release's model from its files."""
    return tiny_release.sampling_config(folder / "sampling.py", folder)
