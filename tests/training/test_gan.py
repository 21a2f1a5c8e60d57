"""The step of the adversarial phase: what it changes, on meshes, in parts, and that it learns."""

from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from osjax import models, weights
from osjax.errors import UserError
from osjax.models import discriminator
from osjax.ops.conv import Conv3d
from osjax.parallel import rules, sharding
from osjax.parallel.host import to_global
from osjax.training import checkpoint, gan, optimizer
from osjax.types import VideoBatch
from tests import golden
from tests.training import tiny

ADAM = optimizer.OptimizerConfig(lr=1e-2, b2=0.98, eps=1e-8, ema_decay=0.5)
CRITIC_ADAM = optimizer.OptimizerConfig(lr=1e-3, b2=0.98, eps=1e-8)
GAN = gan.GanConfig()
CRITIC = models.config("discriminator", ndf=4, n_layers=1, dropout=0.0)
LPIPS = models.config("lpips", chns=(4, 4, 4, 4, 4))
VIDEO = np.random.default_rng(0).uniform(-1, 1, (8, 2, 16, 16, 3)).astype(np.float32)


class Decoder(nn.Module):
    @nn.compact
    def __call__(self, z_BTHWC):
        return Conv3d(3, (1, 1, 1), name="conv_out")(z_BTHWC)


class Thin(nn.Module):
    """The least autoencoder: two convolutions with a bend between."""

    last_layer = ("decoder", "conv_out", "kernel")

    @nn.compact
    def __call__(self, x_BTHWC):
        return Decoder(name="decoder")(nn.gelu(Conv3d(8, (1, 1, 1), name="encoder")(x_BTHWC)))


def boxed():
    """Abstract params of the three models, with their logical names."""
    autoencoder = jax.eval_shape(lambda: Thin().init(jax.random.key(0), VIDEO[:1])["params"])
    return autoencoder, models.abstract_params(CRITIC), models.abstract_params(LPIPS)


@cache
def host_params():
    def made(cfg):
        tensors = {name: golden.generate(name, shape) for name, shape in weights.torch_shapes(cfg).items()}
        counters = {
            name: np.zeros(t.shape, np.int32) for name, t in tensors.items() if name.endswith("num_batches_tracked")
        }
        return weights.from_torch(cfg, tensors | counters)

    shapes = nn.unbox(boxed()[0])
    draw = np.random.default_rng(1).standard_normal
    thin = jax.tree.map(lambda x: (0.3 * draw(x.shape)).astype(np.float32), shapes)
    lpips = made(LPIPS)
    heads = {name: np.abs(leaf) if name.startswith("head") else leaf for name, leaf in lpips.items()}
    return thin, made(CRITIC), heads


@cache
def compiled(mesh, gan_cfg=GAN, cfg=ADAM, disc_cfg=CRITIC_ADAM, critic=CRITIC):
    """(make a state from host params, abstract state, step)."""
    tx, disc_tx = optimizer.make(cfg), optimizer.make(disc_cfg)
    create = partial(gan.create, tx=tx, disc_tx=disc_tx, with_ema=cfg.ema_decay > 0)
    shapes = jax.eval_shape(create, *boxed())
    shardings = sharding.of_boxed(shapes, mesh, rules.AUTOENCODER)
    modules = gan.Models(Thin(), models.build(critic), models.build(LPIPS))
    step = gan.make_step(modules, tx, disc_tx, gan_cfg, cfg, disc_cfg)
    jitted = sharding.jit_step(step, shardings, mesh, rules.AUTOENCODER)
    abstract = checkpoint.abstract_like(nn.unbox(shapes), shardings)
    return jax.jit(create, out_shardings=shardings), abstract, jitted


def whole(adversary):
    """The discriminator's params tree."""
    return discriminator.merge(adversary.params, adversary.statistics)


def stepped(mesh, steps=1, video=VIDEO, seed=7, **settings):
    """(state before, state after, metrics of the last step), on the host."""
    create, _, step = compiled(mesh, **settings)
    state = create(*host_params())
    before = jax.device_get(state)
    for _ in range(steps):
        state, metrics = step(state, to_global(VideoBatch(video), mesh), sharding.random_key(seed, mesh))
    return before, jax.device_get(state), jax.device_get(metrics)


def test_both_models_learn_and_lpips_stays():
    mesh = tiny.single()
    before, first, at_start = stepped(mesh)
    _, after, metrics = stepped(mesh, steps=80)
    assert metrics["l1"] < 0.6 * at_start["l1"] and metrics["lpips"] < at_start["lpips"]
    assert metrics["logits_real"] - metrics["logits_fake"] > at_start["logits_real"] - at_start["logits_fake"]
    assert tiny.same(before.perceptual, after.perceptual)
    assert int(after.step) == 80 and int(after.skipped) == 0
    assert int(after.adversary.statistics["norm1"]["num_batches_tracked"]) == 3 * 80
    assert all(map(np.any, jax.tree.leaves(jax.tree.map(np.subtract, first.params, before.params))))


def test_a_step_on_a_mesh_is_the_step_on_one_device():
    slow = {"cfg": optimizer.OptimizerConfig(lr=1e-3, eps=1.0, ema_decay=0.5)}  # eps: Adam does not magnify rounding
    _, one, metrics = stepped(tiny.single(), **slow)
    mesh = tiny.mesh_of(2, 4, 1, 1)
    _, many, on_mesh = stepped(mesh, **slow)
    _, other, _ = stepped(mesh, video=VIDEO[:, ::-1] ** 2, **slow)
    assert tiny.worst(on_mesh, metrics) < 1e-4
    statistics = [state.adversary.statistics["norm1"]["running_var"] for state in (many, one, other)]
    assert golden.relative_error(statistics[0], statistics[1]) < 1e-5 < golden.relative_error(*statistics[1:])
    assert tiny.worst(many.params, one.params) < 1e-5 < tiny.worst(other.params, one.params)
    _, abstract, _ = compiled(mesh, **slow)
    split = [x for x in jax.tree.leaves(abstract) if not x.sharding.is_fully_replicated]
    assert len(split) > 10  # kernels of all three models, moments and the average


def test_the_generator_loss_pulls_on_the_last_layer_as_its_weight_says():
    create, *_ = compiled(tiny.single())
    state = create(*host_params())
    modules = gan.Models(Thin(), models.build(CRITIC), models.build(LPIPS))

    @jax.jit(static_argnums=0)
    def last_layer(cfg, state):
        found = gan.gradients(modules, cfg, state, VIDEO, jax.random.key(0))
        return found.gradients["decoder"]["conv_out"]["kernel"], found.losses

    late = gan.GanConfig(gen_start=1)
    (with_it, losses), (without, _) = last_layer(GAN, state), last_layer(late, state)
    pull, nll = np.linalg.norm(with_it - without), np.linalg.norm(without)
    assert pull / nll == pytest.approx(0.05, rel=0.02)
    now, _ = last_layer(late, state.replace(step=jnp.int32(1)))  # its start has come
    assert golden.relative_error(now, with_it) < 1e-5
    assert float(losses["loss"]) == pytest.approx(
        float(losses["nll"] + losses["adaptive_weight"] * losses["generator_loss"]), rel=1e-5
    )


def test_the_discriminator_waits_for_its_start_and_only_its_statistics_move():
    before, after, metrics = stepped(tiny.single(), gan_cfg=gan.GanConfig(disc_start=1))
    assert metrics["discriminator_loss"] == 0 == metrics["discriminator_grad_norm"]
    assert tiny.same(before.adversary.params, after.adversary.params)
    assert not tiny.same(before.adversary.statistics, after.adversary.statistics)
    _, later, metrics = stepped(tiny.single(), steps=2, gan_cfg=gan.GanConfig(disc_start=1))
    assert metrics["discriminator_loss"] > 0 and not tiny.same(before.adversary.params, later.adversary.params)


def test_parts_of_a_batch_give_the_mean_of_their_gradients():
    create, *_ = compiled(tiny.single())
    state = create(*host_params())
    modules = gan.Models(Thin(), models.build(CRITIC), models.build(LPIPS))
    plain, in_parts = optax.sgd(1e-3), optimizer.OptimizerConfig(accumulate=2)
    start = gan.create(state.params, whole(state.adversary), state.perceptual, plain, plain, with_ema=False)
    step = gan.make_step(modules, plain, plain, GAN, in_parts, in_parts)
    after, metrics = jax.jit(step)(start, VideoBatch(VIDEO), jax.random.key(0))

    one = jax.jit(lambda state, video: gan.gradients(modules, GAN, state, video, jax.random.key(0)))
    halves = [one(start, VIDEO[n::2]) for n in (0, 1)]
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *(h.gradients for h in halves))
    want = jax.tree.map(lambda p, g: p - 1e-3 * g, start.params, mean)
    assert tiny.worst(after.params, want) < 1e-5 < tiny.worst(start.params, want)
    assert float(metrics["loss"]) == pytest.approx(float(sum(h.losses["loss"] for h in halves)) / 2, rel=1e-5)
    assert int(after.adversary.statistics["norm1"]["num_batches_tracked"]) == 6
    with pytest.raises(UserError, match="a batch of 7 does not divide into accumulate = 2"):
        step(start, VideoBatch(VIDEO[:7]), jax.random.key(0))


def test_a_batch_that_is_not_finite_changes_neither_model():
    broken = VIDEO.copy()
    broken[0, 0, 0, 0, 0] = np.nan
    before, after, metrics = stepped(tiny.single(), video=broken)
    assert int(after.skipped) == metrics["skipped"] == 1 and int(after.step) == 1
    kept = ("params", "opt_state", "ema", "adversary")
    assert all(tiny.same(getattr(before, name), getattr(after, name)) for name in kept)
    _, sound, _ = stepped(tiny.single())
    assert not tiny.same(before.params, sound.params)


def test_the_average_follows_the_autoencoder():
    before, after, _ = stepped(tiny.single())
    want = jax.tree.map(lambda a, b: (a + b) / 2, before.params, after.params)
    assert tiny.worst(after.ema, want) < 1e-6 < tiny.worst(after.params, want)


def test_dropout_and_lecam_take_part_when_asked_for():
    dropping = models.config("discriminator", ndf=4, n_layers=1, dropout=0.5)
    _, _, one = stepped(tiny.single(), critic=dropping)
    _, _, same = stepped(tiny.single(), critic=dropping)
    _, _, other = stepped(tiny.single(), critic=dropping, seed=8)
    assert one["discriminator_loss"] == same["discriminator_loss"] != other["discriminator_loss"]
    _, after, lecam = stepped(tiny.single(), gan_cfg=gan.GanConfig(lecam_weight=10.0))
    _, _, plain = stepped(tiny.single())
    real, fake = lecam["logits_real"], lecam["logits_fake"]
    extra = max(real, 0) ** 2 + max(-fake, 0) ** 2  # against averages that are still zero
    assert lecam["discriminator_loss"] - plain["discriminator_loss"] == pytest.approx(10 * extra, rel=1e-4)
    assert extra > 0 and np.allclose(after.adversary.logit_means, [0.01 * real, 0.01 * fake])


def test_a_saved_state_comes_back_on_another_mesh_bit_for_bit(tmp_path):
    create, *_ = compiled(tiny.single())
    state = create(*host_params())
    store = checkpoint.Checkpoints(tmp_path / "checkpoints")
    store.save(1, state, {"row": 3}, {})
    store.wait()
    _, abstract, _ = compiled(tiny.mesh_of(2, 4, 1, 1))
    back, data = store.restore(abstract)
    store.close()
    assert tiny.same(back, state) and data == {"row": 3}
    assert not back.adversary.params["conv1"]["kernel"].sharding.is_fully_replicated


def test_the_trained_discriminator_goes_out_by_the_originals_names():
    _, after, _ = stepped(tiny.single())
    tensors = weights.to_torch(CRITIC, whole(after.adversary))
    assert {name: t.shape for name, t in tensors.items()} == weights.torch_shapes(CRITIC)
    assert int(tensors["main.3.num_batches_tracked"]) == 3


def test_settings_that_cannot_work_are_refused():
    plain = optax.sgd(1.0)
    make = partial(gan.make_step, gan.Models(Thin(), None, None), plain, plain, GAN)
    with pytest.raises(UserError, match="accumulate 2 must be the autoencoder's, 1"):
        make(optimizer.OptimizerConfig(), optimizer.OptimizerConfig(accumulate=2))
    with pytest.raises(UserError, match="its ema_decay 0.9 must be 0"):
        make(optimizer.OptimizerConfig(), optimizer.OptimizerConfig(ema_decay=0.9))
    with pytest.raises(UserError, match="'hinges' is unknown: use one of hinge, vanilla, wgan-gp"):
        gan.GanConfig(disc_loss_type="hinges")
    with pytest.raises(UserError, match="disc_weight 0 and disc_factor 1.0 must be positive"):
        gan.GanConfig(disc_weight=0)
