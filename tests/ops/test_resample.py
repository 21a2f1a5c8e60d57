"""Order of channels when pixels move into them, and the averages and copies that shortcuts take."""

import jax.numpy as jnp
import numpy as np
import pytest

from osjax.ops.resample import average_down, duplicate_up, nearest_up, shuffle, unshuffle

X = jnp.arange(2 * 4 * 4 * 6 * 3, dtype=jnp.float32).reshape(2, 4, 4, 6, 3)


def test_unshuffle_orders_channels_by_channel_then_time_row_column():
    y = unshuffle(X, (2, 2, 2))
    assert y.shape == (2, 2, 2, 3, 24)
    for channel in range(3):
        for dt in range(2):
            for dh in range(2):
                for dw in range(2):
                    want = X[:, dt::2, dh::2, dw::2, channel]
                    np.testing.assert_array_equal(y[..., channel * 8 + dt * 4 + dh * 2 + dw], want)
    assert not np.array_equal(y[..., 1], X[:, 1::2, ::2, ::2, 0])  # columns come before frames


def test_shuffle_undoes_unshuffle():
    for factors in ((2, 2, 2), (1, 2, 2), (1, 1, 1)):
        np.testing.assert_array_equal(shuffle(unshuffle(X, factors), factors), X)
    assert not np.array_equal(shuffle(unshuffle(X, (1, 2, 2))[..., ::-1], (1, 2, 2)), X)


def test_average_down_takes_means_of_neighbouring_channels():
    y = average_down(X, 3, (1, 2, 2))
    want = X.reshape(2, 4, 2, 2, 3, 2, 3).mean((3, 5))  # all four pixels of a cell, per channel
    np.testing.assert_allclose(y, want, rtol=1e-6)
    with pytest.raises(ValueError, match="do not average into 5"):
        average_down(X, 5, (1, 2, 2))


def test_duplicate_up_undoes_average_down_on_flat_pictures():
    flat = jnp.broadcast_to(X[:, :1, :1, :1], X.shape)
    np.testing.assert_array_equal(duplicate_up(average_down(flat, 6, (2, 2, 2)), 3, (2, 2, 2)), flat)
    with pytest.raises(ValueError, match="do not repeat into 20"):
        duplicate_up(X, 5, (1, 2, 2))


def test_nearest_up_repeats_each_pixel():
    want = X.repeat(2, axis=1).repeat(2, axis=2).repeat(3, axis=3)
    np.testing.assert_array_equal(nearest_up(X, (2, 2, 3)), want)
    assert not np.array_equal(nearest_up(X, (2, 2, 3))[:, 1:], want[:, :-1])
