"""The 3D patch discriminator against arrays of the original, and its running statistics."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from osjax import models, weights
from osjax.errors import UserError
from osjax.models import discriminator
from osjax.parallel import rules
from tests import golden
from tests.models import discriminator_weights


@pytest.fixture(scope="module")
def original():
    """(module, params, clips, arrays, settings)."""
    arrays, settings = golden.read("discriminator")
    module, params = discriminator_weights.load("manifest_discriminator_tiny")
    assert module.cfg == models.config("discriminator", **settings["config"])
    return module, params, np.moveaxis(arrays["in.video"], 1, -1), arrays, settings


def channels_last(x_BCTHW):
    return np.moveaxis(x_BCTHW, 1, -1)


@jax.jit(static_argnums=0)
def in_training(module, params, clips):
    return module.apply({"params": params}, clips, train=True, mutable=["batch_stats"])


def test_logits_by_running_and_by_batch_statistics_match_the_original(original):
    module, params, clips, arrays, settings = original
    tolerance = settings["tolerance_relative"]
    plain = jax.jit(module.apply)({"params": params}, clips)
    assert golden.relative_error(plain, channels_last(arrays["logits_eval"])) < tolerance
    trained, _ = in_training(module, params, clips)
    assert golden.relative_error(trained, channels_last(arrays["logits_train"])) < tolerance
    assert golden.relative_error(plain, channels_last(arrays["logits_train"])) > 0.1


def test_running_statistics_after_a_training_call_match_the_original(original):
    module, params, clips, arrays, settings = original
    _, updates = in_training(module, params, clips)
    trainable, _ = discriminator.split(params)
    after = weights.to_torch(module.cfg, discriminator.merge(trainable, updates["batch_stats"]))
    before = weights.to_torch(module.cfg, params)
    names = [name.removeprefix("after_train.") for name in arrays if name.startswith("after_train.")]
    assert len(names) == 10
    for name in names:
        want = arrays[f"after_train.{name}"]
        assert golden.relative_error(after[name], want) < settings["tolerance_relative"]
        assert golden.relative_error(before[name], want) > 1e-3
    counts = [int(t) for name, t in after.items() if name.endswith("num_batches_tracked")]
    assert counts == settings["num_batches_tracked_after"]


def test_a_tree_is_split_and_put_together_again_and_gradients_are_of_its_trainable_part(original):
    module, params, clips, *_ = original
    trainable, statistics = discriminator.split(params)
    chex.assert_trees_all_equal(discriminator.merge(trainable, statistics), params)
    assert len(jax.tree.leaves(statistics)) == 3 * module.cfg.n_layers

    def loss(trainable):
        merged = discriminator.merge(trainable, statistics)
        return jnp.square(module.apply({"params": merged}, clips, train=True)).mean()

    gradient = jax.jit(jax.grad(loss))(trainable)
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(gradient))


def test_dropout_is_drawn_in_training_alone():
    cfg = models.config("discriminator", ndf=4, n_layers=1, dropout=0.5)
    module = models.build(cfg)
    tensors = {name: golden.generate(name, shape) for name, shape in weights.torch_shapes(cfg).items()}
    params = weights.from_torch(cfg, tensors)
    clips = np.random.default_rng(0).uniform(-1, 1, (1, 3, 16, 16, 3)).astype(np.float32)

    @jax.jit
    def logits(seed):
        return module.apply({"params": params}, clips, train=True, rngs={"dropout": jax.random.key(seed)})

    assert np.array_equal(logits(0), logits(0)) and not np.allclose(logits(0), logits(1))
    assert np.array_equal(*(jax.jit(module.apply)({"params": params}, clips) for _ in range(2)))


def test_statistics_and_logits_are_float32_for_features_in_bfloat16(original):
    module, params, clips, *_ = original
    exact, _ = in_training(module, params, clips)
    low, updates = in_training(module.clone(dtype=jnp.bfloat16), params, clips)
    assert low.dtype == jnp.float32 and 0 < golden.relative_error(low, exact) < 0.2
    kinds = {str(x.dtype) for x in jax.tree.leaves(updates)}
    assert kinds == {"float32", "int32"}


def test_single_images_are_judged_too_and_patches_do_not_see_far(original):
    module, params, clips, *_ = original
    image = clips[:, :1]
    run = jax.jit(module.apply)
    logits = run({"params": params}, image)
    assert logits.shape == (2, 1, 2, 2, 1)
    other = image.copy()
    other[0, 0, 0, 0] += 1
    changed = np.asarray(run({"params": params}, other) - logits)
    assert np.abs(changed[0]).max() > 1e-6 and not np.any(changed[1])


def test_every_parameter_has_axes_with_rules():
    boxed = models.abstract_params(models.config("discriminator"))
    boxes = jax.tree.leaves(boxed, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned))
    assert all(len(box.names) == len(box.value.shape) for box in boxes)
    specs = [rules.spec(box.names, rules.AUTOENCODER) for box in boxes]
    assert any("fsdp" in spec for spec in specs) and not all("fsdp" in spec for spec in specs)


def test_settings_that_are_not_known_are_refused():
    with pytest.raises(UserError, match="conv_cls 'conv2d' is unknown: use 'conv3d'"):
        models.config("discriminator", conv_cls="conv2d")
    with pytest.raises(UserError, match="n_layers 0 must be at least 1"):
        models.config("discriminator", n_layers=0)
