"""What a run refuses before its first step, its dry run refuses in the same words, and what that accepts starts."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from osjax import models, weights
from osjax.__main__ import main
from osjax.data import dataset
from osjax.training import metrics
from tests import tiny_release
from tests.sampling import tiny

LORA = {"lora.rank": 2, "lora.alpha": 2.0}
FRESH = {"config": "fresh"}  # a config that names no weights to start from
CACHED = {"data.cached": True, "data.random_start": False}

# Overrides of a config that would run; {name} is a file that the fixture writes; what the error says.
WRONG = [
    ({"steps": 0}, "steps is 0"),
    ({"steps": -3}, "steps is -3"),
    ({"seed": -1}, "seed is -1"),
    ({"name": "a/b"}, "is used as a folder"),
    ({"mesh.fsdp": 3}, "does not fit 8 devices"),
    ({"mesh.data": -1, "mesh.fsdp": -1}, "is not valid"),
    ({"mesh.sequence": 0}, "is not valid"),
    ({"data.buckets": ()}, "data.buckets is empty"),
    ({"data.buckets": (("32px", 8, 1.0),)}, "is no row"),
    ({"data.buckets": (("32px", 8, 2.0, 1),)}, "keep in [0, 1]"),
    ({"data.buckets": (("32px", 8, 1.0, 0),)}, "batch of 1 or more"),
    ({"data.buckets": (("huge", 8, 1.0, 1),)}, "is not understood"),
    ({"data.buckets": (("32px", 7, 1.0, 1),)}, "7 frames"),
    ({"data.buckets": (("32px", 8, 1.0, 3),), "data.batch_per_device": False}, "does not divide"),
    ({"data.buckets": (("32px", 8, 1.0, 4),)}, "no bucket fills a batch"),
    ({"data.buckets": (("64px", 8, 1.0, 1),)}, "no bucket fills a batch"),
    ({"data.buckets": (("32px", 12, 1.0, 1),)}, "no bucket fills a batch"),
    ({"data.source": ""}, "no data.source"),
    ({"data.source": "/nowhere"}, "data.source /nowhere does not exist"),
    ({"data.source": "{clips}"}, "holds no data set"),
    ({"data.source": "{cut}"}, "shard"),
    ({"data.source": "{undecodable}"}, "clips in a row do not decode"),
    ({"data.held_out": "{source}"}, "evaluate.every is 0"),
    ({"data.held_out_share": 0.1}, "evaluate.every is 0"),
    ({"data.held_out_share": 1.5, "evaluate.every": 2}, "held_out_share is 1.5"),
    ({"data.held_out_share": 0.1, "data.held_out": "{source}", "evaluate.every": 2}, "data.held_out names other clips"),
    ({"data.held_out": "/nowhere", "evaluate.every": 2}, "data.held_out /nowhere does not exist"),
    ({"data.held_out": "{large}", "evaluate.every": 2, "data.buckets": (("32px", 12, 1.0, 1),)}, "no bucket"),
    ({"data.threads": 0}, "threads is 0"),
    ({"data.timeout_s": 5.0, "data.workers": 0}, "data.workers is 0"),
    ({"data.fps_max": 0.0}, "fps_max is 0"),
    ({"data.image_ratio": 0.5}, "images have buckets of their own"),
    ({"data.cached_text": True}, "data.cached is off"),
    ({**CACHED, "data.features": "/nowhere"}, "data.features /nowhere does not exist"),
    ({**CACHED, "data.features": "{clips}"}, "holds no features of these clips"),
    ({"evaluate.every": 2}, "nothing to evaluate on"),
    ({"evaluate.prompts": ("a red circle",)}, "evaluate.every is 0"),
    ({"evaluate.sample_every": 2}, "evaluate.prompts is empty"),
    ({"evaluate.every": -1}, "must be 0 or more"),
    ({"model.num_heads": 3}, "3"),
    ({"model.attention": "flash"}, "needs a GPU or a TPU"),
    ({"model.attention": "banana"}, "banana"),
    ({"model.attention_kernel": "dense"}, "model.attention is dense"),
    ({"model.in_channels": 12}, "in_channels"),
    ({"model.context_in_dim": 32}, "text.width"),
    ({"model.hidden_size": 64, "model.axes_dim": (8, 12, 12)}, "video.safetensors: weights do not fit the model"),
    ({"model.remat": "banana"}, "banana"),
    ({"modes.i2v_haed": 1.0}, "unknown config key"),
    ({"modes.t2v": -1.0}, "weight -1.0"),
    ({"start.weights": "/nowhere.safetensors"}, "start.weights /nowhere.safetensors does not exist"),
    ({"start.weights": "{text}"}, "safetensors"),
    ({"start.weights": "{cut_weights}"}, "cut_weights"),
    ({"start.weights": "{autoencoder}"}, "Its names look like a DC-AE"),
    ({"start.weights": "{fewer}"}, "missing"),
    ({"start.layout": "banana"}, "start.layout"),
    ({"start.layout": "flux"}, "missing"),
    ({**LORA, **FRESH}, "lora adapts a trained model"),
    ({"lora.alpha": 3.0}, "lora.rank is 0"),
    ({**LORA, "lora.targets": ("banana",)}, "fits no parameter"),
    ({**LORA, "lora.start": "{video}"}, "video"),
    ({**LORA, "lora.start": "{wide_adapters}"}, "wide_adapters"),
    ({**LORA, "lora.start": "{lame_adapters}"}, "lame_adapters"),
    ({**LORA, "start.weights": "{swollen}"}, "img_in"),
    ({**LORA, "model.hidden_size": 64, "model.axes_dim": (8, 12, 12)}, "weights do not fit the model"),
    ({**LORA, "lora.base_dtype": "float8"}, "lora.base_dtype"),
    ({"lora.base_dtype": "int8"}, "lora.rank is 0"),
    ({**LORA, "freeze.params": ("img_in",)}, "lora freezes the whole model"),
    ({"freeze.params": ("*",)}, "nothing to train"),
    ({"freeze.but": ("img_in",)}, "freeze.params is empty"),
    ({"autoencoder.weights": "/nowhere"}, "autoencoder.weights /nowhere does not exist"),
    ({"autoencoder.weights": "{video}"}, "Its names look like Open-Sora v2"),
    ({"autoencoder.family": "hunyuan"}, "unknown config key autoencoder.config."),
    ({"autoencoder.stage": "earlier"}, "give one of"),
    ({"text.t5": "/nowhere"}, "belong together"),
    ({"text.t5": "/nowhere", "text.clip": "/nowhere", "text.width": 64, "text.max_length": 16}, "does not exist"),
    ({"text.t5": "{clips}", "text.clip": "{clips}", "text.width": 64, "text.max_length": 16}, "config.json"),
    ({"optimizer.schedule": "banana"}, "unknown schedule"),
    ({"optimizer.lr": -1.0}, "lr is -1.0"),
    ({"optimizer.final_lr_ratio": 0.5}, "schedule is constant"),
    ({"sample.fsp": 8}, "unknown config key"),
    ({"workdir": "{text}/run"}, "cannot be written to"),
    ({"checkpoints": "{text}/run"}, "cannot be written to"),
    ({"wandb": "project"}, "wandb is not installed"),
]
# Much at once: adapters, on a mesh that gives way, evaluated on a share of the clips and by samples.
RIGHT = {**LORA, "mesh.fsdp": 3, "mesh.fit": True, "evaluate.every": 1, "data.held_out_share": 0.5}
RIGHT |= {"evaluate.sample_every": 1, "evaluate.prompts": ("a red circle",)}


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """The files that the tables name, the config among them as `config`."""
    folder = tmp_path_factory.mktemp("release")
    config = tiny_release.write(folder)
    source = next(folder.rglob("set/**/dataset_info.json")).parent
    files = {name: folder / f"{name}.safetensors" for name in ("video", "autoencoder", "text", "cut_weights", "fewer")}
    files["text"].write_text("no weights")
    (folder / "fresh.py").write_text(config.read_text().replace("cfg.start.weights = VIDEO", ""))
    files["cut_weights"].write_bytes(files["video"].read_bytes()[:5000])
    tensors = load_file(files["video"])
    save_file({name: x for name, x in tensors.items() if "img_in" not in name}, files["fewer"])
    out, width = tensors["double_blocks.0.img_attn.proj.weight"].shape
    proj = "double_blocks.0.img_attn.proj.lora_"
    for name, rows, columns, ranks in (("wide", out, width + 8, (2, 2)), ("lame", out, width, (2, 3))):
        files[f"{name}_adapters"] = folder / f"{name}_adapters.safetensors"
        pair = {f"{proj}A.weight": np.ones((ranks[0], columns), "f"), f"{proj}B.weight": np.ones((rows, ranks[1]), "f")}
        save_file(pair, files[f"{name}_adapters"])
    files["swollen"] = folder / "swollen.safetensors"
    save_file(
        {name: np.tile(x, (2,) * x.ndim) if "img_in" in name else x for name, x in tensors.items()}, files["swollen"]
    )
    shutil.copytree(source, folder / "cut")
    (shard,) = (folder / "cut").glob("*.array_record*")
    shard.write_bytes(shard.read_bytes()[:-100])
    (folder / "noise.mp4").write_bytes(b"no video at all")
    row = {"path": folder / "noise.mp4", "text": "noise", "num_frames": 8, "height": 32, "width": 32, "fps": 8.0}
    undecodable = dataset.build_clips([row] * 16, folder / "undecodable")
    large = tiny_release.data_set(folder / "large", tiny_release.write_clips(folder / "large_clips", 4, 48))
    return {"config": config, "source": source, "clips": folder / "clips", "cut": folder / "cut", "large": large} | {
        "undecodable": undecodable,
        "fresh": folder / "fresh.py",
        **files,
    }


def flags(overrides: dict, release: dict) -> list[str]:
    """Overrides as a command line has them."""
    overrides = {key: value for key, value in overrides.items() if key != "config"}
    text = {key: str(value).format(**release) if "{" in str(value) else str(value) for key, value in overrides.items()}
    return [f"--config.{key}={value}" for key, value in text.items()]


def verdict(release: dict, overrides: dict, workdir: Path, capsys, *more: str) -> tuple[int, list[str]]:
    """(exit status, lines of errors) of a run."""
    path = release[overrides.get("config", "config")]
    argv = ["train", f"--config={path}", f"--config.workdir={workdir}", *flags(overrides, release), *more]
    capsys.readouterr()
    status = main(argv)
    return status, [line for line in capsys.readouterr().err.splitlines() if line.startswith("osjax: ")]


@pytest.mark.parametrize(("overrides", "says"), WRONG, ids=lambda x: str(x)[:60])
def test_a_run_and_its_dry_run_refuse_the_same_in_the_same_words(overrides, says, release, tmp_path, capsys):
    dry = verdict(release, overrides, tmp_path / "new", capsys, "--dry-run")
    assert dry[0] == 2 and any(says in line for line in dry[1]), dry
    assert verdict(release, overrides, tmp_path / "new", capsys) == dry
    assert not (tmp_path / "new").exists()


def test_there_are_sixty_wrong_configs():
    assert len(WRONG) >= 60


@pytest.fixture(scope="module")
def started(release, tmp_path_factory):
    """Workdir of a run of one step that asks for much of what may be asked for."""
    workdir = tmp_path_factory.mktemp("started") / "run"
    argv = ["train", f"--config={release['config']}", f"--workdir={workdir}", *flags(RIGHT, release)]
    assert main([*argv, "--dry-run"]) == 0 and not workdir.exists()
    assert main(argv) == 0
    return workdir


def test_what_a_dry_run_accepts_starts(started):
    (line,) = metrics.read(started / "metrics.jsonl")
    assert line["step"] == 0 and line["eval_loss"] > 0
    assert len(list((started / "samples").rglob("*.mp4"))) == 1


@pytest.mark.parametrize("overrides", [{}, FRESH, {"data.workers": 1}, {"optimizer.schedule": "cosine"}], ids=str)
def test_what_is_right_is_accepted(overrides, release, tmp_path, capsys):
    assert verdict(release, {"steps": 9, **overrides}, tmp_path / "new", capsys, "--dry-run") == (0, [])


def test_all_that_is_wrong_is_told_together_and_whole(release, tmp_path, capsys):
    long = "/nowhere/" + "x" * 700
    wrong = {"start.weights": long, "autoencoder.weights": "{text}", "data.source": "{cut}", "evaluate.every": 3}
    status, lines = verdict(release, wrong, tmp_path / "new", capsys, "--dry-run")
    assert status == 2 and len(lines) == 4 and any(long in line for line in lines)


def test_a_checkpoint_of_another_model_is_refused_by_both(release, started, capsys):
    other = {**RIGHT, "steps": 2, "lora.rank": 4}
    dry = verdict(release, other, started, capsys, "--dry-run")
    assert dry[0] == 2 and "does not fit this config" in dry[1][0]
    assert verdict(release, other, started, capsys) == dry


def test_a_dry_run_of_adapters_says_how_many_parameters_train(release, tmp_path, capsys):
    argv = ["train", f"--config={release['config']}", f"--workdir={tmp_path}", "--dry-run", *flags(LORA, release)]
    assert main(argv) == 0
    out = capsys.readouterr().out
    model = models.config("mmdit", **tiny.DENOISER)
    whole = sum(np.prod(shape) for shape in weights.leaf_shapes(model).values())
    trained = 3 * 4 * 2 * 32 * 2  # three streams; q, k, v and what leads back; a pair each, of 32 x 2
    assert f"{whole:,} parameters" in out and f"{trained:,} parameters train" in out


def test_a_model_that_is_larger_than_the_machine_is_refused_before_anything_is_read(release, tmp_path, capsys):
    huge = {"model.depth": 400_000, **FRESH}
    dry = verdict(release, huge, tmp_path, capsys, "--dry-run")
    assert dry[0] == 2 and "the state of training takes" in dry[1][0]
    assert verdict(release, huge, tmp_path, capsys) == dry
