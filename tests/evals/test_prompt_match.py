"""Clips are read as they were drawn, through MP4 and blur; noise and wrong captions score at chance."""

import flax.linen as nn
import jax
import numpy as np
import pytest
from osjax.configs import smoke

from osjax import models
from osjax.conditioning.text import TextEncoder
from osjax.data import clips, video
from osjax.evals import prompt_match
from osjax.parts.groups import to_dataclass
from osjax.sampling.pipeline import Autoencoder, Pipeline, SampleSettings

COUNT = 96
CHANCE = {"colour": 1 / 6, "shape": 1 / 4, "direction": 1 / 4}


@pytest.fixture(scope="module")
def drawn():
    """(specifications, decoded clips): each combination once."""
    specs = clips.specs(COUNT, 11, clips.combinations())
    return specs, [video.decode(video.encode(clips.render(s, 64), 8, crf=12)) for s in specs]


def test_decoded_training_clips_are_read_right(drawn):
    specs, videos = drawn
    found = prompt_match.score(videos, specs)
    assert found["samples"] == COUNT
    assert min(found[name] for name in CHANCE) >= 0.98, found


def test_larger_clips_are_read_right():
    specs = clips.specs(16, 3, clips.combinations())
    found = prompt_match.score([clips.render(s, 96) for s in specs], specs)
    assert min(found[name] for name in CHANCE) >= 0.98, found


def test_blurred_and_noisy_clips_are_read_right(drawn):
    specs, videos = drawn
    at = np.arange(64)
    kernel = np.exp(-((at[:, None] - at) ** 2) / (2 * 1.5**2))
    kernel /= kernel.sum(1, keepdims=True)
    rng = np.random.default_rng(0)
    lossy = []
    for clip in videos[::2]:
        soft = np.einsum("ab,tbcz,dc->tadz", kernel, clip.astype(np.float64), kernel, optimize=True)
        lossy.append(np.clip(soft + rng.normal(0, 6, soft.shape), 0, 255).astype(np.uint8))
    found = prompt_match.score(lossy, specs[::2])
    assert min(found[name] for name in CHANCE) >= 0.95, found


def test_mismatched_captions_score_at_chance(drawn):
    specs, videos = drawn
    order = np.random.default_rng(0).permutation(COUNT)
    found = prompt_match.score(videos, [specs[i] for i in order])
    for name, chance in CHANCE.items():
        assert abs(found[name] - chance) < 0.12, found


def test_noise_and_empty_scenes_score_no_better_than_chance(drawn):
    specs, videos = drawn
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, videos[0].shape, dtype=np.uint8) for _ in range(12)]
    empty = [np.full(videos[0].shape, 90, np.uint8)] * 8
    for nothing in (noise, empty):
        found = prompt_match.score(nothing, specs[: len(nothing)])
        for name, chance in CHANCE.items():
            assert found[name] < chance + 0.3, found


def test_an_untrained_model_scores_no_better_than_chance():
    ae_cfg = to_dataclass(models.config_class("dcae"), smoke.autoencoder_model())
    cfg = smoke.diffusion("64px", steps=1)
    model_cfg = to_dataclass(models.config_class("mmdit"), cfg.model)
    fresh = [
        nn.unbox(jax.jit(lambda key, c=c: models.init_params(c, key))(jax.random.key(0))) for c in (ae_cfg, model_cfg)
    ]
    text = TextEncoder(cfg.text.width, cfg.text.max_length)
    pipe = Pipeline(models.build(model_cfg), fresh[1], Autoencoder(models.build(ae_cfg), fresh[0]), text)
    specs = clips.specs(32, 5, clips.split()[1])
    settings = SampleSettings(frames=8, height=64, width=64, steps=2)
    made = pipe([s.caption for s in specs], settings=settings).videos_BTHWC
    found = prompt_match.score(made, specs)
    assert found["samples"] == 32 and made.std() > 0
    for name, chance in CHANCE.items():
        assert found[name] <= chance + 0.15, found


def test_a_clip_played_backwards_moves_the_other_way(drawn):
    specs, videos = drawn
    other = {"left": "right", "right": "left", "up": "down", "down": "up"}
    for spec, clip in list(zip(specs, videos, strict=True))[:24]:
        assert prompt_match.match(clip[::-1])["direction"] == other[spec.direction]
