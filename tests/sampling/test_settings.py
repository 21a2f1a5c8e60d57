"""Sizes, shapes and prompts against the original's tables."""

from typing import get_type_hints

import pytest

from osjax.data import caption
from osjax.errors import UserError
from osjax.models.autoencoder import Stride
from osjax.sampling.settings import Changes, SampleSettings, round_up
from tests import golden

TABLES = golden.read_json("sampling_functions")


@pytest.mark.parametrize("case", TABLES["sanitize_sampling_option"], ids=str)
def test_sizes_follow_the_original(case):
    want = case["out_height"], case["out_width"]
    if "resolution" in case:
        settings = SampleSettings(resolution=case["resolution"], aspect_ratio=case["aspect_ratio"])
        assert settings.size(16) == want
        assert SampleSettings(resolution="512px", aspect_ratio=case["aspect_ratio"]).size(16) != want
    else:
        assert round_up(case["height"], case["width"], 16) == want
        assert SampleSettings(height=case["height"], width=case["width"]).size(16) == (case["height"], case["width"])


@pytest.mark.parametrize("case", TABLES["get_noise_shape"], ids=str)
def test_noise_shapes_follow_the_original(case):
    patch, multiple = case["patch_size"], case["AE_SPATIAL_COMPRESSION"]
    height, width = round_up(case["height"], case["width"], multiple)
    stride = Stride(4, multiple // patch, causal=True)
    _, H, W = stride.latent_shape(1, height, width)
    _, channels, frames, *want = case["shape"]
    assert [H, W] == want and (channels, frames) == (case["channel"], case["num_frames"])


@pytest.mark.parametrize("case", TABLES["latent_frames"], ids=str)
def test_frame_counts_follow_the_original_where_they_are_valid(case):
    stride, frames = Stride(case["temporal_reduction"], 8, case["is_causal_vae"]), case["num_frames"]
    if case["is_causal_vae"] and frames == 128:  # the original rounds down without a word
        with pytest.raises(UserError, match="the nearest valid number is 129"):
            stride.latent_shape(frames, 8, 8)
    else:
        assert stride.latent_shape(frames, 8, 8)[0] == case["latent_frames"]


def test_the_end_of_the_prompt_follows_the_original():
    for case in TABLES["text"]["add_fps_info"]:
        assert caption.prompt(case["in"], "original", case["fps"]) == case["out"]
    for case in TABLES["text"]["add_motion_score"]:
        assert caption.prompt(case["in"], "original", None, case["score"]) == case["out"]
    assert SampleSettings(fps=16, state_fps=True, motion_score=4).says(" a cat. ") == "a cat. 16 FPS. 4 motion score."
    assert SampleSettings(fps=16).says(" a cat. ") == " a cat. "
    told = SampleSettings(fps=16, state_fps=True, motion_score=4, caption_form="training").says("a cat")
    assert told == caption.suffixed("a cat", 16, 4) == "a cat 16 FPS, 4 motion score."  # as runs here are trained
    with pytest.raises(UserError, match="caption_form is 'banana'"):
        SampleSettings(caption_form="banana")


@pytest.mark.parametrize(
    "resolution, aspect, multiple, size",
    [
        ("768px", "4:3", 32, (672, 864)),
        ("768px", "2.39:1", 32, (480, 1184)),
        ("256px", "16:9", 32, (192, 320)),
        ("256px", "16:9", 16, (192, 336)),
    ],
)
def test_sizes_of_deep_compression_come_from_tables_that_step_by_its_stride(resolution, aspect, multiple, size):
    assert SampleSettings(resolution=resolution, aspect_ratio=aspect).size(multiple) == size


def test_a_resolution_replaces_the_size_it_is_given_for():
    settings = SampleSettings(height=32, width=32)
    assert settings.size(16) == (32, 32)
    assert settings.changed(resolution="256px").size(16) == (192, 336)
    assert settings.changed(aspect_ratio="1:1").size(32) == (256, 256)
    assert settings.changed(steps=3).size(16) == (32, 32)
    with pytest.raises(UserError, match="not both"):
        settings.changed(resolution="256px", height=64)


def test_changes_are_named_and_typed_as_the_settings_are():
    assert get_type_hints(Changes) == get_type_hints(SampleSettings)


@pytest.mark.parametrize(
    "given, says",
    [
        ({"guidance_from": 0.2, "guidance_until": 0.8}, "less than the first"),
        ({"guidance_from": 1.5}, "1 .noise. or less"),
        ({"guidance_until": float("nan")}, "are times of sampling"),
        ({"guidance_until": 0.5, "guidance": 1.0}, "but there is none"),
    ],
)
def test_guidance_in_a_part_of_the_steps_is_refused_where_it_says_nothing(given, says):
    with pytest.raises(UserError, match=says):
        SampleSettings(**given)


def test_what_is_said_of_unguided_samples_leaves_out_when_guidance_acts():
    when = {"guidance_from", "guidance_until"}
    assert when <= SampleSettings(guidance=1.0).unread() and not when & SampleSettings(guidance_from=0.9).unread()
    assert not when & SampleSettings(guidance=1.0, mode="i2v_head").unread()
