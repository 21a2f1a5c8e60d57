"""Latent statistics that are gathered clip by clip."""

import numpy as np
import pytest

from osjax.evals.latents import LatentStatistics


def gathered(parts) -> LatentStatistics:
    statistics = LatentStatistics()
    for part in parts:
        statistics.add(part)
    return statistics


def test_statistics_of_parts_are_those_of_the_whole():
    rng = np.random.RandomState(0)
    parts = [rng.normal(1000 * n, 2, (1, n + 1, 3, 2, 4)) * np.array([1, 2, 3, 1]) for n in range(3)]
    whole = np.concatenate([p.reshape(-1, 4) for p in parts])
    statistics = gathered(parts)
    np.testing.assert_allclose(statistics.mean, whole.mean(0), rtol=1e-12)
    np.testing.assert_allclose(statistics.std, whole.std(0), rtol=1e-12)
    assert statistics.overall == pytest.approx((whole.mean(), whole.std()), rel=1e-12)
    assert not np.allclose(gathered(parts[:2]).std, statistics.std)
    found = statistics.report()
    assert (found["min"], found["max"], found["values"]) == (whole.min(), whole.max(), whole.size)


def test_the_implied_scale_makes_latents_normal_and_dead_channels_are_counted():
    rng = np.random.RandomState(1)
    z = rng.normal(3, 0.25, (2, 4, 5, 5, 8))
    z[..., 0] = 3
    found = gathered([z]).report()
    normal = found["implied"]["scale"] * (z - found["implied"]["shift"])
    assert (normal.mean(), normal.std()) == pytest.approx((0, 1), abs=1e-9)
    assert found["dead_channels"] == 1
    assert gathered([z[..., 1:]]).report()["dead_channels"] == 0
