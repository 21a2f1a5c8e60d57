"""`osjax train` on the two phases of an autoencoder, as a user runs them."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from osjax import models, weights
from osjax.__main__ import main
from osjax.stages import data as train_data
from osjax.training import metrics
from tests import golden
from tests.e2e import faults

CHANNELS = (4, 4, 4, 4, 4)  # of a thin LPIPS
DINO = {"embed_dim": 8, "depth": 1, "num_heads": 2, "img_size": 4, "patch_size": 2}
CONFIG = """
from ml_collections import ConfigDict

from osjax.configs import base

SIDE = {"width_list": (8, 8), "depth_list": (1, 1), "block_type": "ResBlock"}


def get_config():
    recon, gan = stage(), stage()
    recon.data.image_ratio = 0.4
    recon.losses.alignment_weight = 0.5
    recon.dinov2.weights = "DINO"
    recon.dinov2.config = ConfigDict(SMALL)
    recon.dinov2.level = 1
    gan.start.stage = "recon"
    gan.losses.perceptual_weight = 0.5
    gan.adversary.disc_weight = 0.05
    gan.adversary.model.update(ndf=4, n_layers=1)
    gan.evaluate.update(every=2, batches=1)
    stages = {"recon": recon, "gan": gan}
    cfg = base.curriculum("phases", stages)
    cfg.clips.update(train=48, held_out=16, frames=4, size=32)
    return cfg


def stage():
    cfg = base.autoencoder()
    cfg.steps = 4
    cfg.mesh.update(data=2, fsdp=4)
    cfg.model = ConfigDict({"latent_channels": 4, "time_compression_ratio": 2, "spatial_compression_ratio": 2})
    cfg.model.encoder = ConfigDict({**SIDE, "temporal_downsample": (True, False)})
    cfg.model.decoder = ConfigDict({**SIDE, "temporal_upsample": (True, False)})
    cfg.data.buckets = (("32px_ar1:1", 4, 1.0, 8),)
    cfg.lpips.weights = "LPIPS"
    cfg.lpips.config = ConfigDict({"chns": CHANNELS})
    cfg.optimizer.update(lr=1e-3, ema_decay=0.5)
    return cfg
"""


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    """Arguments of the command beside those of a test."""
    folder = tmp_path_factory.mktemp("phases")
    shapes = weights.torch_shapes(models.config("lpips", chns=CHANNELS))
    tensors = {name: golden.generate(name, shape) for name, shape in shapes.items()}
    tensors = {name: np.abs(t) if name.startswith("lin") else t for name, t in tensors.items()}
    save_file(tensors, folder / "lpips.safetensors")
    shapes = weights.torch_shapes(models.config("dinov2", **DINO))
    save_file({name: golden.generate(name, shape) for name, shape in shapes.items()}, folder / "dino.safetensors")
    text = CONFIG.replace("CHANNELS", repr(CHANNELS)).replace("SMALL", repr(DINO))
    text = text.replace('"LPIPS"', repr(str(folder / "lpips.safetensors")))
    text = text.replace('"DINO"', repr(str(folder / "dino.safetensors")))
    (folder / "phases.py").write_text(text)
    return [f"--config={folder / 'phases.py'}", f"--config.compilation_cache={folder / 'cache'}"]


@pytest.fixture(scope="module")
def whole(flags, tmp_path_factory):
    """Workdir of a run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("whole")
    assert main(["train", *flags, f"--workdir={workdir}"]) == 0
    return workdir


def test_a_finished_run_says_again_what_it_reached_on_held_out_clips(whole, flags, capsys):
    assert main(["train", *flags, f"--workdir={whole}"]) == 0
    kept = json.loads((whole / "gan" / "held_out.json").read_text())
    line = f"gan, held-out clips: PSNR {kept['eval_psnr_db']:.2f} dB, LPIPS {kept['eval_lpips']:.4f}"
    assert line in capsys.readouterr().out and not (whole / "recon" / "held_out.json").exists()
    before = [line["eval_psnr_db"] for line in metrics.read(whole / "metrics.jsonl") if "eval_psnr_db" in line]
    assert len(before) == 2 and kept["eval_psnr_db"] not in before  # measured once more, at the end


def test_the_adversarial_phase_goes_on_where_the_reconstruction_ended(whole):
    lines = list(metrics.read(whole / "metrics.jsonl"))
    assert [(line["stage"], line["step"]) for line in lines] == [(s, n) for s in ("recon", "gan") for n in range(4)]
    recon, gan = lines[:4], lines[4:]
    assert {"l1", "lpips", "generator_loss", "discriminator_loss", "adaptive_weight"} <= gan[0].keys()
    assert gan[2]["eval_psnr_db"] != gan[0]["eval_psnr_db"] and gan[2]["eval_lpips"] != gan[0]["eval_lpips"]
    assert gan[0]["l1"] < recon[0]["l1"]  # new weights would begin where the reconstruction began
    assert recon[3]["alignment"] < recon[0]["alignment"] and "alignment" not in gan[0]
    assert {line["batch"] for line in recon} == {"8x1x32x32x3", "8x4x32x32x3"}  # images and videos
    start, end = (faults.weights(whole, stage) for stage in ("recon", "gan"))
    assert {name for name in end if "adversary" in name} and not {name for name in start if "adversary" in name}
    assert {name for name in start if "alignment" in name} and not {name for name in end if "alignment" in name}
    fixed = [name for name in start if "perceptual" in name]
    assert len(fixed) > 20 and all(np.array_equal(start[name], end[name]) for name in fixed)


def test_what_was_trained_is_measured_by_its_workdir_and_cannot_be_sampled_from(whole, tmp_path, capsys):
    size = ["--config.data.frames=4", "--config.data.height=32", "--config.data.width=32"]
    assert main(["eval", "recon", f"--workdir={whole}", f"--output={tmp_path}", *size]) == 0
    found = json.loads((tmp_path / "recon.json").read_text())
    kept = json.loads((whole / "gan" / "held_out.json").read_text())
    assert len(found["videos"]) == 16 and abs(found["mean"]["psnr"] - kept["eval_psnr_db"]) < 2  # of eight of them
    capsys.readouterr()
    assert main(["sample", f"--workdir={whole}", "--prompt=a red circle", f"--output={tmp_path}"]) == 2
    assert f"trained an autoencoder alone: osjax eval recon --workdir={whole}" in capsys.readouterr().err


def test_a_run_that_stopped_in_the_adversarial_phase_ends_with_the_same_bits(whole, flags, tmp_path):
    """The second command has no LPIPS to read: it is in the checkpoint."""
    run = ["train", *flags, f"--workdir={tmp_path}"]
    assert main([*run, "--config.stages.gan.steps=2"]) == 0
    assert main([*run, "--config.stages.gan.lpips.weights=/nowhere"]) == 0
    got, want = faults.weights(tmp_path, "gan"), faults.weights(whole, "gan")
    assert got.keys() == want.keys() and len(want) > 100
    assert not [name for name in want if not np.array_equal(got[name], want[name])]
    assert faults.losses(tmp_path) == faults.losses(whole)


@pytest.mark.parametrize(
    "overrides, words",
    [
        ({"gan.lpips.weights": ""}, "gan: losses.perceptual_weight needs LPIPS: give lpips.weights"),
        ({"recon.lpips.untrained": True}, "recon: give one of lpips.weights and lpips.untrained"),
        ({"gan.lpips.weights": "/nowhere"}, "gan: lpips.weights /nowhere does not exist"),
        ({"recon.dinov2.weights": ""}, "recon: losses.alignment_weight needs DINOv2: give dinov2.weights"),
        ({"recon.dinov2.level": 3}, "recon: dinov2.level is 3: the encoder has levels 1 to 2"),
        ({"recon.dinov2.weights": "/nowhere"}, "recon: dinov2.weights /nowhere does not exist"),
        ({"gan.losses.image_weight": 0.5}, "gan: losses.image_weight is of the reconstruction phase"),
        ({"gan.adversary.disc_loss_type": "hinges"}, "use one of hinge, vanilla, wgan-gp"),
        (
            {"recon.latent_statistics.clips": 4, "recon.latent_statistics.resolution": "99px"},
            "recon: latent_statistics.resolution '99px' is no resolution of data.buckets",
        ),
        ({"recon.data.image_ratio": 2.0}, "recon: data.image_ratio is 2.0: give a share from 0 to 1"),
    ],
)
def test_mistakes_are_named_before_anything_is_made(flags, overrides, words, tmp_path, capsys):
    wrong = [f"--config.stages.{key}={value}" for key, value in overrides.items()]
    assert main(["train", *flags, f"--workdir={tmp_path / 'new'}", "--dry-run", *wrong]) != 0
    error = capsys.readouterr().err
    assert words in error and len(error.splitlines()) == 1 and not (tmp_path / "new").exists()


class Counted:
    """Batches that say which they are."""

    def __init__(self):
        self.n = 0

    def __next__(self):
        self.n += 1
        return {"video": np.full((2, 4, 1, 1, 3), self.n), "text": "x"}

    def get_state(self):
        return {"n": self.n}

    def set_state(self, state):
        self.n = state["n"]


def test_which_batches_are_images_depends_on_the_seed_and_the_batch_alone():
    mixed = train_data.SomeImages(Counted(), 0.2, seed=3)
    frames = [next(mixed)["video"].shape[1] for _ in range(200)]
    assert 20 < frames.count(1) < 60 and set(frames) == {1, 4}
    again = train_data.SomeImages(Counted(), 0.2, seed=3)
    for _ in range(50):
        next(again)
    moved = train_data.SomeImages(Counted(), 0.2, seed=3)
    moved.set_state(again.get_state())
    found = [next(moved)["video"] for _ in range(150)]
    assert [x.shape[1] for x in found] == frames[50:] and found[0][0, 0, 0, 0, 0] == 51
    other = train_data.SomeImages(Counted(), 0.2, seed=4)
    assert [next(other)["video"].shape[1] for _ in range(200)] != frames
