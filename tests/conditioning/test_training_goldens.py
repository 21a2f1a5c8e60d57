"""Training conditions against the original: clean latents and condition of every mode."""

import functools

import jax
import numpy as np
import pytest

from osjax import models, weights
from osjax.conditioning import build, modes
from osjax.models.mmdit import patch
from tests import golden

UNCAUSAL = golden.read_json("train_condition_uncausal")["cases"]
CAUSAL = golden.read_json("train_condition_causal")["cases"]


def channels_last(x):
    return np.moveaxis(x, 1, -1)


@functools.cache
def encoder(family, manifest_name, **changes):
    manifest = golden.read_json(manifest_name)
    cfg = models.config(family, **{**manifest["config"], **changes})
    tensors = {n: golden.generate(n, tuple(t["shape"]), manifest["gain"]) for n, t in manifest["state_dict"].items()}
    model, params = models.build(cfg), weights.from_torch(cfg, tensors)
    run = jax.jit(lambda params, video: model.apply({"params": params}, video, method="encode"))
    return functools.partial(run, params)  # not a constant of the program, which would take longer to compile


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
    got_latents, got_cond = build.encode_with_condition(
        encoder("dcae", "manifest_dcae_tiny"),
        video,
        build.same_mode(name, len(video)),
        (name,),
        causal=False,
        pad=case.get("pad", False),
    )
    assert golden.relative_error(got_latents, latents) <= meta["tolerance_relative"]
    assert golden.relative_error(got_cond, cond) <= meta["tolerance_relative"]


def test_padding_changes_the_encoded_clip():
    arrays, meta = golden.read("train_condition_uncausal")
    for mode in ("i2v_head", "i2v_loop", "i2v_tail"):
        plain, padded = arrays[f"{mode}.x_0"], arrays[f"{mode}_pad.x_0"]
        assert golden.relative_error(plain, padded) > 100 * meta["tolerance_relative"]


def test_packed_condition_of_a_training_batch_equals_the_original():
    arrays, meta = golden.read("train_inputs_uncausal_patch1")
    encode = encoder("dcae", "manifest_dcae_tiny", scaling_factor=meta["config"]["scaling_factor"])
    video = channels_last(arrays["in.video"])
    latents, cond = build.encode_with_condition(
        encode, video, build.same_mode("i2v_tail", len(video)), ("i2v_tail",), causal=False
    )
    assert golden.relative_error(patch.pack(latents, 1), arrays["x_0_packed"]) <= meta["tolerance_relative"]
    assert golden.relative_error(patch.pack(cond, 1), arrays["model_input.cond"]) <= meta["tolerance_relative"]
    _, head = build.encode_with_condition(
        encode, video, build.same_mode("i2v_head", len(video)), ("i2v_head",), causal=False
    )
    assert golden.relative_error(patch.pack(head, 1), arrays["model_input.cond"]) > 0.1


@pytest.mark.parametrize("case", CAUSAL, ids=lambda c: c["case"])
def test_condition_of_a_causal_autoencoder_equals_the_original(case):
    arrays, meta = golden.read("train_condition_causal")
    video = training_video(arrays, case)
    latents, cond = expected(arrays, case)
    (name,) = case["condition_config"]
    encode = encoder("hunyuan", "manifest_hunyuan_tiny")
    got = build.encode_with_condition(encode, video, build.same_mode(name, len(video)), (name,), causal=True)
    assert golden.relative_error(got[0], latents) <= meta["tolerance_relative"]
    assert golden.relative_error(got[1], cond) <= meta["tolerance_relative"]
    if name != "t2v" and len(cond) and cond.any():
        assert golden.relative_error(np.roll(got[1], 1, axis=1), cond) > 0.1


@pytest.mark.parametrize(("name", "mode"), [("train_inputs_causal", "i2v_head"), ("train_inputs_image", "t2v")])
def test_latents_and_condition_of_a_causal_training_batch_equal_the_original(name, mode):
    arrays, meta = golden.read(name)
    video = channels_last(arrays["in.video"])
    encode = encoder("hunyuan", "manifest_hunyuan_tiny")
    latents, cond = build.encode_with_condition(encode, video, build.same_mode(mode, len(video)), (mode,), causal=True)
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
