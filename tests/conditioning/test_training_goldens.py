"""Training conditions against the original: clean latents and condition of every mode, as a stage makes them.

The cases whose given images are repeated to fill a latent frame of their own are left out: osjax does not train so.
"""

import functools

import jax
import numpy as np
import pytest

from osjax import models, weights
from osjax.conditioning import build, modes
from osjax.models.mmdit import patch
from osjax.models.velocity import VideoInputs
from osjax.parallel import mesh
from osjax.sampling.autoencoder import Autoencoder
from osjax.stages.encoders import Encoders
from osjax.training.draw import Draw
from tests import golden

UNCAUSAL = [case for case in golden.read_json("train_condition_uncausal")["cases"] if not case.get("pad")]
CAUSAL = golden.read_json("train_condition_causal")["cases"]


def channels_last(x):
    return np.moveaxis(x, 1, -1)


@functools.cache
def stage_parts(family, manifest_name, **changes):
    """The autoencoder and the mesh of a stage."""
    manifest = golden.read_json(manifest_name)
    cfg = models.config(family, **{**manifest["config"], **changes})
    tensors = {n: golden.generate(n, tuple(t["shape"]), manifest["gain"]) for n, t in manifest["state_dict"].items()}
    return Autoencoder(models.build(cfg), weights.from_torch(cfg, tensors)), mesh.make(devices=jax.devices()[:1])


def trained_on(parts, video, name):
    """Latents and condition that a step of the mode `name` learns from: what `Encoders` and `Draw` make of a video."""
    autoencoder, one = parts
    no_text = np.zeros((len(video), 1, 1), np.float32), np.zeros((len(video), 1), np.float32)
    encoders = Encoders(autoencoder.module, lambda: autoencoder, None, "float32", one, {name: 1.0})
    levels = (np.asarray(video, np.float32) + 1) * np.float32(127.5)  # as the loader gives them
    rows = encoders.of_videos({"video": levels, "txt": no_text[0], "vec": no_text[1]})
    takes = VideoInputs(video.shape[-1], 1, 1, 1, condition=True, guidance=False)
    draw = Draw(takes, {name: 1.0}, autoencoder.module.stride, (no_text[0][0], no_text[1][0]))
    batch = draw(rows, jax.random.key(0))
    return batch.latents_BTHWC, batch.cond_BTHWC


def training_video(arrays, case):
    if case["video"].startswith("in.clip"):
        times = int(case["video"].split()[-2])
        return np.concatenate([channels_last(arrays["in.clip"])] * times, axis=1)
    video = channels_last(arrays["in.short"])
    return video[:, :1] if case["video"].startswith("first frame") else video


def expected(arrays, case):
    latents = arrays["long.x_0" if "v2v" in case["case"] else f"{case['case']}.x_0"]
    return channels_last(latents), channels_last(arrays[f"{case['case']}.cond"])


@pytest.mark.parametrize("case", UNCAUSAL, ids=lambda c: c["case"])
def test_condition_of_a_non_causal_autoencoder_equals_the_original(case):
    arrays, meta = golden.read("train_condition_uncausal")
    video = training_video(arrays, case)
    latents, cond = expected(arrays, case)
    (name,) = case["condition_config"]
    got_latents, got_cond = trained_on(stage_parts("dcae", "manifest_dcae_tiny"), video, name)
    assert golden.relative_error(got_latents, latents) <= meta["tolerance_relative"]
    assert golden.relative_error(got_cond, cond) <= meta["tolerance_relative"]


def test_packed_condition_of_a_training_batch_equals_the_original():
    arrays, meta = golden.read("train_inputs_uncausal_patch1")
    parts = stage_parts("dcae", "manifest_dcae_tiny", scaling_factor=meta["config"]["scaling_factor"])
    video = channels_last(arrays["in.video"])
    latents, cond = trained_on(parts, video, "i2v_tail")
    assert golden.relative_error(patch.pack(latents, 1), arrays["x_0_packed"]) <= meta["tolerance_relative"]
    assert golden.relative_error(patch.pack(cond, 1), arrays["model_input.cond"]) <= meta["tolerance_relative"]
    _, head = trained_on(parts, video, "i2v_head")
    assert golden.relative_error(patch.pack(head, 1), arrays["model_input.cond"]) > 0.1


@pytest.mark.parametrize("case", CAUSAL, ids=lambda c: c["case"])
def test_condition_of_a_causal_autoencoder_equals_the_original(case):
    arrays, meta = golden.read("train_condition_causal")
    video = training_video(arrays, case)
    latents, cond = expected(arrays, case)
    (name,) = case["condition_config"]
    got = trained_on(stage_parts("hunyuan", "manifest_hunyuan_tiny"), video, name)
    assert golden.relative_error(got[0], latents) <= meta["tolerance_relative"]
    assert golden.relative_error(got[1], cond) <= meta["tolerance_relative"]
    if name != "t2v" and len(cond) and cond.any():
        assert golden.relative_error(np.roll(got[1], 1, axis=1), cond) > 0.1


@pytest.mark.parametrize(("name", "mode"), [("train_inputs_causal", "i2v_head"), ("train_inputs_image", "t2v")])
def test_latents_and_condition_of_a_causal_training_batch_equal_the_original(name, mode):
    arrays, meta = golden.read(name)
    video = channels_last(arrays["in.video"])
    latents, cond = trained_on(stage_parts("hunyuan", "manifest_hunyuan_tiny"), video, mode)
    assert golden.relative_error(patch.pack(latents, 2), arrays["x_0_packed"]) <= meta["tolerance_relative"]
    if "model_input.cond" in arrays:
        assert golden.relative_error(patch.pack(cond, 2), arrays["model_input.cond"]) <= meta["tolerance_relative"]


@pytest.mark.parametrize("case", CAUSAL, ids=lambda c: c["case"])
def test_condition_of_a_causal_autoencoder_is_laid_out_as_in_the_original(case):
    """The references are cut out of the stored condition; laid out again they must give all of it."""
    arrays, _ = golden.read("train_condition_causal")
    _, cond = expected(arrays, case)
    B, T, H, W, _ = cond.shape
    (name,) = case["condition_config"]
    mode = modes.of(name)
    references = {}
    for r in mode.references:
        length = r.latent_frames(causal=True)
        references[r.name] = cond[:, :length, ..., 1:] if r.at == 0 else cond[:, -length:, ..., 1:]

    def lay_out(causal):
        return build.condition(build.same_mode(name, B), references, (T, H, W, cond.shape[-1] - 1), causal)

    np.testing.assert_array_equal(lay_out(True), cond)
    if mode.is_clip:
        assert not np.array_equal(lay_out(False), cond)
