"""Latent distillation: what is compared with what, and what learns."""

from functools import cache

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from osjax import models
from osjax.ops.conv import Conv3d
from osjax.training import autoencoder, optimizer
from osjax.training import state as states
from osjax.training.distillation import Distillation
from osjax.types import VideoBatch
from tests import golden
from tests.models.test_dcae import small
from tests.training import tiny

DINO = models.config("dinov2", embed_dim=8, depth=1, num_heads=2, img_size=8, patch_size=2)
TEACHER = models.build(DINO)
TEACHING = Distillation(TEACHER, level=1, frames=0)
VIDEO = np.random.default_rng(0).uniform(-1, 1, (2, 4, 8, 8, 3)).astype(np.float32)
ADAM = optimizer.OptimizerConfig(lr=2e-2, eps=1e-8, ema_decay=0.5)


class Encoder(nn.Module):
    @nn.compact
    def __call__(self, x_BTHWC):
        return Conv3d(6, (1, 3, 3), (1, 2, 2), name="stage0")(x_BTHWC)


class Thin(nn.Module):
    """The least autoencoder that has a level: 2x in space, its latents as they leave the level."""

    def setup(self):
        self.encoder, self.decoder = Encoder(), Conv3d(12, (1, 1, 1))

    def __call__(self, x_BTHWC):
        B, T, H, W, _ = x_BTHWC.shape
        cells = self.decoder(nn.gelu(self.encoder(x_BTHWC))).reshape(B, T, H // 2, W // 2, 2, 2, 3)
        return cells.transpose(0, 1, 2, 4, 3, 5, 6).reshape(B, T, H, W, 3)


@cache
def teacher():
    draw = np.random.default_rng(3).standard_normal
    shapes = nn.unbox(models.abstract_params(DINO))
    return jax.tree.map(lambda x: (draw(x.shape) / np.sqrt(max(x.shape[0], 8))).astype(np.float32), shapes)


@cache
def features():
    """Of every frame: the clip has a patch of the teacher for every place of the latents."""
    return np.asarray(jax.jit(TEACHER.apply)({"params": teacher()}, VIDEO))


IDENTITY = {"linear": {"kernel": np.eye(8, dtype=np.float32), "bias": np.zeros(8, np.float32)}}


@jax.jit
def loss_of(latents, video=VIDEO):
    return TEACHING.loss(IDENTITY, teacher(), latents, video, jax.random.key(0))


def test_the_loss_is_the_angle_between_latents_and_features_place_by_place():
    assert features().shape == (2, 4, 4, 4, 8)
    assert float(loss_of(features())) < 1e-5 and float(loss_of(5 * features())) < 1e-5
    assert float(loss_of(-features())) == pytest.approx(2, abs=1e-5)
    moved = np.roll(features(), 1, axis=2)
    a, b = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (moved, features()))
    want = 1 - (a * b).sum(-1).mean()
    assert float(loss_of(moved)) == pytest.approx(want, abs=1e-4) and want > 0.05


def test_a_latent_frame_of_several_frames_is_compared_with_the_middle_one():
    assert float(loss_of(features()[:, 1::2])) < 1e-5 < float(loss_of(features()[:, ::2]))


def test_pictures_are_resized_to_a_patch_for_every_place():
    large = np.repeat(np.repeat(VIDEO, 2, 2), 2, 3)  # 16 x 16 pixels for latents of 4 x 4
    assert float(loss_of(features(), large)) < 0.2 < float(loss_of(np.roll(features(), 1, axis=2), large))


def test_only_some_frames_are_compared_where_that_is_asked():
    some = Distillation(TEACHER, level=1, frames=1)
    latents = features() * np.array([1, -1, 1, 1], np.float32).reshape(1, 4, 1, 1, 1)
    one = jax.jit(lambda seed: some.loss(IDENTITY, teacher(), latents, VIDEO, jax.random.key(seed)))
    assert {round(float(one(seed))) for seed in range(16)} == {0, 2}


def test_latents_of_a_level_are_those_of_the_pass_that_reconstructs():
    cfg = small()
    module = models.build(cfg).clone(remat=True)
    params = jax.tree.map(lambda x: np.full(x.shape, 0.1, np.float32), nn.unbox(models.abstract_params(cfg)))
    got, latents = jax.jit(lambda p: TEACHING.reconstruct(module, p, VIDEO))(params)
    np.testing.assert_allclose(got, jax.jit(lambda p: module.apply({"params": p}, VIDEO))(params), rtol=1e-5)
    assert latents.shape == (2, 2, 4, 4, 8)  # the first level of two, which halves time and space
    assert float(jnp.abs(latents).max()) > 0


def trained(steps=1, weight=0.5, seed=0):
    """(state before, state after, metrics of all steps)."""
    tx = optimizer.make(ADAM)
    shapes = jax.eval_shape(lambda: Thin().init(jax.random.key(0), VIDEO)["params"])
    draw = np.random.default_rng(1).standard_normal
    params = jax.tree.map(lambda x: (0.3 * draw(x.shape)).astype(np.float32), nn.unbox(shapes))
    both = ({"linear": {"kernel": 0.3 * draw((6, 8)), "bias": np.zeros(8)}}, teacher()) if weight else ()
    both = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), both)
    state = autoencoder.create(lambda: jax.tree.map(jnp.asarray, params), tx, with_ema=True)
    if weight:
        state = autoencoder.create(lambda: jax.tree.map(jnp.asarray, params), tx, True, states.EVERYTHING, None, *both)
    losses = autoencoder.AutoencoderLosses(alignment_weight=weight)
    step = jax.jit(autoencoder.make_step(Thin(), tx, ADAM, losses, teaching=TEACHING))
    before, lines = state, []
    for _ in range(steps):
        state, metrics = step(state, VideoBatch(VIDEO), jax.random.key(seed))
        lines.append(jax.device_get(metrics))
    return before, state, lines


def test_latents_and_projection_learn_and_the_teacher_stays():
    before, after, lines = trained(60)
    assert lines[-1]["alignment"] < 0.6 * lines[0]["alignment"] and lines[-1]["l1"] < lines[0]["l1"]
    assert lines[0]["loss"] == pytest.approx(lines[0]["l1"] + 0.5 * lines[0]["alignment"], rel=1e-5)
    assert tiny.same(before.alignment.teacher, after.alignment.teacher)
    assert not tiny.same(before.alignment.projection, after.alignment.projection)
    assert before.params.keys() == after.params.keys() == after.ema.keys() == {"encoder", "decoder"}


def test_the_average_covers_both_and_without_distillation_there_is_neither_loss_nor_projection():
    before, after, _ = trained(1)
    want = jax.tree.map(lambda a, b: (a + b) / 2, before.alignment.projection, after.alignment.projection)
    assert tiny.worst(after.alignment.average, want) < 1e-6 < tiny.worst(after.alignment.projection, want)
    _, plain, lines = trained(1, weight=0.0)
    assert plain.alignment is None and "alignment" not in lines[0]
    kernels = [state.params["encoder"]["stage0"]["kernel"] for state in (after, plain)]
    assert golden.relative_error(*kernels) > 1e-3  # the alignment pulls on the encoder
