"""The forms of the 3D convolution give the same numbers, and their gradients do too."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from osjax.ops import patches, winograd
from osjax.ops.conv import Conv3d, as_native, conv3d
from osjax.types import Axis


def inputs(groups, in_channels, features, size=(3, 3, 3)):
    x = jax.random.normal(jax.random.key(0), (2, 4, 5, 6, in_channels))
    kernel = jax.random.normal(jax.random.key(1), (*size, in_channels // groups, features))
    return x, kernel


CASES = [
    ("taps", 1, (3, 3, 3), (1, 1, 1)),
    ("taps", 1, (3, 3, 3), (2, 2, 2)),
    ("taps", 2, (3, 3, 3), (1, 2, 2)),
    ("taps", 1, (1, 3, 3), (1, 1, 1)),
    ("winograd", 1, (3, 3, 3), (1, 1, 1)),
    ("winograd", 1, (1, 3, 3), (1, 1, 1)),
    ("winograd", 1, (3, 3, 1), (1, 1, 1)),
    ("patches", 1, (3, 3, 3), (1, 1, 1)),
    ("patches", 1, (3, 3, 3), (2, 2, 2)),
    ("patches", 1, (2, 3, 4), (3, 2, 1)),
    ("shifts", 4, (5, 3, 5), (1, 1, 1)),
    ("auto", 4, (3, 3, 3), (1, 1, 1)),
    ("auto", 2, (1, 1, 1), (1, 1, 1)),
]


@pytest.mark.parametrize("impl, groups, size, stride", CASES)
def test_every_form_and_its_gradients_match_the_native_convolution(impl, groups, size, stride):
    x, kernel = inputs(groups, 4, 4, size)

    def loss(x, kernel, impl):
        y = conv3d(x, kernel, stride, groups=groups, impl=impl)
        return (jnp.sin(y) * jnp.arange(y.size, dtype=y.dtype).reshape(y.shape) / y.size).sum(), y

    grad = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    (_, want), want_gradients = grad(x, kernel, "native")
    (_, got), got_gradients = grad(x, kernel, impl)
    np.testing.assert_allclose(got, want, atol=1e-4)
    for ours, theirs in zip(got_gradients, want_gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert np.abs(conv3d(x, kernel[::-1] * 2, stride, groups=groups, impl=impl) - want).max() > 0.1


def test_uneven_padding_reaches_one_side_only():
    x, kernel = inputs(4, 4, 4)
    causal = ((2, 0), (1, 1), (1, 1))
    want = conv3d(x, kernel, padding=causal, groups=4, impl="native")
    np.testing.assert_allclose(conv3d(x, kernel, padding=causal, groups=4, impl="shifts"), want, atol=1e-5)
    np.testing.assert_allclose(conv3d(x, kernel, padding=causal, groups=4, impl="taps"), want, atol=1e-5)
    later = x.at[:, -1].add(1.0)
    after = conv3d(later, kernel, padding=causal, groups=4)
    np.testing.assert_allclose(after[:, :-1], want[:, :-1], atol=1e-5)
    assert np.abs(after[:, -1] - want[:, -1]).max() > 0.1


@pytest.mark.parametrize("frames, padding", [(1, ((1, 1),) * 3), (3, ((2, 0), (1, 1), (0, 2))), (5, ((0, 0),) * 3)])
def test_winograd_takes_odd_sizes_and_any_padding_forward_and_backward(frames, padding):
    x = jax.random.normal(jax.random.key(0), (2, frames, 5, 6, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 3, 4))

    def loss(x, kernel, impl):
        return (conv3d(x, kernel, padding=padding, impl=impl) ** 2).sum()

    got, want = (jax.value_and_grad(loss, argnums=(0, 1))(x, kernel, impl) for impl in ("winograd", "native"))
    chex.assert_trees_all_close(got, want, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("size", [(3, 7, 8), (8, 4, 5), (6, 12, 3)])
def test_winograd_with_four_outputs_at_a_time_forward_and_backward(size, monkeypatch):
    monkeypatch.setattr(winograd, "PER_SUM", 0)  # fewest products, however many sums
    x = jax.random.normal(jax.random.key(0), (2, *size, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 3, 4))
    _, tiles = winograd._plan(x.shape, kernel.shape, ((1, 1),) * 3)
    assert [tile.outputs for tile in tiles] == [4 if n in (3, 4, 7, 8, 12) else 2 for n in size]

    def loss(x, kernel, impl):
        return (conv3d(x, kernel, impl=impl) ** 2).sum()

    got, want = (jax.value_and_grad(loss, argnums=(0, 1))(x, kernel, impl) for impl in ("winograd", "native"))
    chex.assert_trees_all_close(got, want, rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize("kernel_size", [(3, 3, 3), (1, 3, 3)])
def test_winograd_a_few_frames_at_a_time_gives_the_same_forward_and_backward(kernel_size, monkeypatch):
    x = jax.random.normal(jax.random.key(0), (2, 12, 6, 5, 3))
    kernel = jax.random.normal(jax.random.key(1), (*kernel_size, 3, 4))

    def run():
        grad = jax.value_and_grad(lambda x, kernel: (conv3d(x, kernel, impl="winograd") ** 2).sum(), argnums=(0, 1))
        return grad(x, kernel), str(jax.make_jaxpr(grad)(x, kernel))

    whole, at_once = run()
    monkeypatch.setattr(winograd, "STEP", 1)
    parts, in_steps = run()
    steps = 12 if kernel_size[0] == 1 else 12 // winograd._plan(x.shape, kernel.shape, ((1, 1),) * 3)[1][0].outputs
    assert "length=1\n" in at_once and f"length={steps}\n" in in_steps and steps > 2
    chex.assert_trees_all_close(parts, whole, rtol=1e-4, atol=2e-3)


def test_winograd_takes_pairs_where_places_are_few_and_fours_where_they_are_many():
    def outputs(T, side):
        tiles = winograd._plan((1, T, side, side, 8), (3, 3, 3, 8, 8), ((1, 1),) * 3)[1]
        return [tile.outputs for tile in tiles]

    assert outputs(8, 64) == [4, 4, 4]
    assert outputs(4, 8) == [2, 2, 2]
    assert outputs(2, 64) == [2, 4, 4]


@pytest.mark.parametrize("dtype, error", [(jnp.float32, 4e-6), (jnp.bfloat16, 4e-3)])
def test_winograd_is_off_by_what_the_format_rounds(dtype, error):
    x = jax.random.normal(jax.random.key(0), (1, 8, 32, 32, 64)).astype(dtype)
    kernel = (jax.random.normal(jax.random.key(1), (3, 3, 3, 64, 8)) / 40).astype(dtype)
    want = conv3d(x.astype(jnp.float32), kernel.astype(jnp.float32), impl="native")
    got = conv3d(x, kernel, impl="winograd")
    assert got.dtype == dtype
    assert np.abs(got - want).max() < error * np.abs(want).max()


def test_depthwise_convolution_of_bfloat16_is_summed_in_float32():
    x = jax.random.normal(jax.random.key(0), (1, 6, 8, 8, 4)).astype(jnp.bfloat16)
    kernel = jax.random.normal(jax.random.key(1), (5, 5, 5, 1, 4)).astype(jnp.bfloat16)

    def run(x, kernel, impl):
        def loss(x, kernel):
            y = conv3d(x, kernel, groups=4, impl=impl)
            return (y.astype(jnp.float32) ** 2).mean(), y

        (_, y), gradients = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(x, kernel)
        return y, *gradients

    want = run(x.astype(jnp.float32), kernel.astype(jnp.float32), "native")
    for got, exact in zip(run(x, kernel, "shifts"), want, strict=True):
        assert got.dtype == jnp.bfloat16
        assert np.abs(got - exact).max() < 6e-3 * np.abs(exact).max()


def test_the_form_is_chosen_by_width_size_and_backend():
    def form(C, dtype=jnp.float32, side=16, **how):
        x, kernel = jnp.ones((1, 4, side, side, C), dtype), jnp.ones((3, 3, 3, C, C), dtype)
        operations = str(jax.make_jaxpr(lambda x, kernel: conv3d(x, kernel, **how))(x, kernel))
        if "conv_general_dilated" in operations:
            return "conv"
        return "winograd" if "([0], [0])" in operations else "patches"  # products side by side, or one

    assert form(128) == form(128, side=15) == form(128, jnp.bfloat16) == "winograd"
    assert form(128, stride=(1, 2, 2)) == form(128, side=8) == "patches"
    assert form(64) == form(64, stride=(1, 2, 2)) == "conv"
    with as_native():
        assert form(128) == form(128, side=8) == "conv"
    with pytest.raises(ValueError, match="no 'winograd' for 1 groups, stride"):
        form(128, impl="winograd", stride=(1, 2, 2))


def test_large_patches_are_made_a_few_frames_at_a_time(monkeypatch):
    x, kernel = inputs(1, 4, 4)

    def run():
        def loss(x, kernel):
            return (conv3d(x, kernel, (1, 2, 2), impl="patches") ** 2).sum()

        grad = jax.value_and_grad(loss, argnums=(0, 1))
        return grad(x, kernel), str(jax.make_jaxpr(grad)(x, kernel))

    whole, at_once = run()
    monkeypatch.setattr(patches, "STEP", 2 * 9 * 27 * 4 * 2)
    parts, in_steps = run()
    assert "length=1" in at_once and "length=2" in in_steps
    chex.assert_trees_all_close(parts, whole, rtol=1e-4, atol=1e-3)


def test_numpy_kernels_work_outside_jit():
    x, kernel = inputs(4, 4, 4)
    np.testing.assert_allclose(
        conv3d(np.asarray(x), np.asarray(kernel), groups=4), conv3d(x, kernel, groups=4), atol=1e-6
    )


def test_an_unknown_form_is_refused():
    x, kernel = inputs(1, 4, 4)
    with pytest.raises(ValueError, match="no 'fast'"):
        conv3d(x, kernel, impl="fast")
    with pytest.raises(ValueError, match="no 'shifts' for 1 groups"):
        conv3d(x, kernel, impl="shifts")


def test_parameters_are_named_float32_and_computation_follows_dtype():
    layer = Conv3d(6, dtype=jnp.bfloat16)
    x = jnp.ones((1, 2, 4, 4, 3))
    params = layer.init(jax.random.key(0), x)["params"]
    assert params["kernel"].names == (Axis.CONV_KERNEL,) * 3 + (Axis.CONV_IN, Axis.CONV_OUT)
    assert params["bias"].names == (Axis.CONV_OUT,)
    assert params["kernel"].value.dtype == jnp.float32
    assert layer.apply({"params": params}, x).dtype == jnp.bfloat16
